"""``manage.py llmcache_stats``: what the calls of a period saved and cost, and what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.template.defaultfilters import filesizeformat

from llmcache.background import database
from llmcache.exceptions import InvalidArgument
from llmcache.management.errors import failing_cleanly
from llmcache.models import CacheEntry
from llmcache.providers.pricing import dollars
from llmcache.reports import formatting
from llmcache.reports.periods import DEFAULT, NAMES, Period, read_period
from llmcache.reports.stored import TOP, Stored
from llmcache.reports.usage import Line, ReasonCount, Totals, Usage


class Command(BaseCommand):
    help = (
        "Tells what the calls of a period saved and cost, compared with the period before, and "
        "which entries are worth most."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--period", choices=NAMES, default=DEFAULT, help="Default: %(default)s."
        )
        parser.add_argument("--from", dest="first", metavar="DAY", help="A day, as in 2026-11-30.")
        parser.add_argument("--to", dest="last", metavar="DAY", help="Default: today, in UTC.")
        parser.add_argument(
            "--top", type=int, default=TOP, help="The most lines of a table. Default: %(default)s."
        )
        parser.add_argument(
            "--format", choices=("text", "json"), default="text", help="Default: %(default)s."
        )

    @failing_cleanly()
    def handle(self, *args: Any, **options: Any) -> None:
        period, top = _period(options), options["top"]
        if top < 1:
            raise CommandError(f"--top is 1 or more; not {top}.")
        found = database.run(
            lambda: (Usage.of(period, top=top), Stored.read(top=top)), patience=None
        )
        if options["format"] == "json":
            self.stdout.write(json.dumps(_facts(*found), cls=DjangoJSONEncoder, indent=2))
        else:
            self.stdout.write("\n".join(_lines(*found)))


def _period(options: dict[str, Any]) -> Period:
    try:
        days = (options[name] and date.fromisoformat(options[name]) for name in ("first", "last"))
        return read_period(options["period"], *days)
    except InvalidArgument as error:
        raise CommandError(str(error)) from None
    except ValueError as error:
        raise CommandError(f"--from and --to take days, as in 2026-11-30: {error}.") from None


def _facts(usage: Usage, stored: Stored) -> dict[str, Any]:
    """What is told, by name. Money is in US dollars."""
    period = usage.period
    return {
        "period": {
            "name": period.name,
            "start": period.start,
            "end": period.end,
            "before": period.before,
        },
        "totals": _totals(usage.totals),
        "before": _totals(usage.before),
        "tiers": usage.tiers,
        "steps": [{"start": step.start, **_totals(step.totals)} for step in usage.steps],
        "namespaces": _named(usage.namespaces),
        "models": _named(usage.models),
        "response_models": _named(usage.response_models),
        "bypasses": _reasons(usage.bypasses),
        "not_stored": _reasons(usage.not_stored),
        "stored": {
            "entries": stored.entries,
            "bytes": stored.size,
            "counted_at": stored.counted_at,
            "namespaces": [
                {"name": space.name, "entries": space.entries, "bytes": space.size}
                for space in stored.namespaces
            ],
            "most_valuable": [_entry(entry) for entry in stored.most_valuable],
            "largest": [_entry(entry) for entry in stored.largest],
        },
    }


def _totals(totals: Totals) -> dict[str, Any]:
    return {
        "calls": totals.calls,
        "outcomes": totals.outcomes,
        "hit_ratio": totals.hit_ratio,
        "cost_saved": _dollars(totals.cost_saved),
        "cost_spent": _dollars(totals.cost_spent),
        "unpriced_calls": totals.unpriced,
        "input_tokens_saved": totals.input_tokens_saved,
        "output_tokens_saved": totals.output_tokens_saved,
        "input_tokens_spent": totals.input_tokens_spent,
        "output_tokens_spent": totals.output_tokens_spent,
        "seconds_saved": totals.seconds_saved,
        "stored": totals.stored,
        "bytes_stored": totals.bytes_stored,
    }


def _named(lines: list[Line]) -> list[dict[str, Any]]:
    return [{"name": line.name, **_totals(line.totals)} for line in lines]


def _reasons(reasons: list[ReasonCount]) -> list[dict[str, Any]]:
    return [
        {
            "reason_code": reason.code,
            "reason": reason.words,
            "calls": reason.calls,
            "remedy": reason.remedy,
        }
        for reason in reasons
    ]


def _entry(entry: CacheEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "namespace": entry.namespace,
        "model": entry.model,
        "response_model": entry.response_model,
        "hits": entry.hits,
        "saved": None if entry.saved is None else _dollars(entry.saved),
        "bytes": entry.size,
    }


def _dollars(cost: int) -> str:
    # (not as 1E-9, which not all that read decimals can read)
    return f"{dollars(cost):f}"


# For people


def _lines(usage: Usage, stored: Stored) -> Iterator[str]:
    period, now, before = usage.period, usage.totals, usage.before
    yield f"{period.name}: {period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC"
    yield _line("calls", formatting.count(now.calls), formatting.count(before.calls))
    yield _line("hit ratio", formatting.part(now.hit_ratio), formatting.part(before.hit_ratio))
    yield _line(
        "money saved", formatting.money(now.cost_saved), formatting.money(before.cost_saved)
    )
    yield _line(
        "money spent", formatting.money(now.cost_spent), formatting.money(before.cost_spent)
    )
    yield _line(
        "tokens saved", formatting.count(now.tokens_saved), formatting.count(before.tokens_saved)
    )
    yield _line(
        "time saved",
        formatting.duration(now.seconds_saved),
        formatting.duration(before.seconds_saved),
    )
    yield _line("unpriced calls", formatting.count(now.unpriced), formatting.count(before.unpriced))
    for outcome, calls in now.outcomes.items():
        yield _line(outcome, formatting.count(calls), formatting.count(before.outcomes[outcome]))
    for heading, lines in (
        ("by namespace", usage.namespaces),
        ("by model", usage.models),
        ("by response model", usage.response_models),
    ):
        yield from _table(heading, ("saved", "spent", "calls", "hits"), map(_cells, lines))
    for heading, reasons in (("skipped", usage.bypasses), ("not stored", usage.not_stored)):
        cells = ([formatting.count(each.calls), f"{each.words}. {each.remedy}"] for each in reasons)
        yield from _table(heading, ("calls", "why, and what to do"), cells)
    entries = (
        [
            formatting.money(entry.saved or 0),
            formatting.count(entry.hits),
            str(entry),
            entry.namespace,
        ]
        for entry in stored.most_valuable
    )
    yield from _table("most valuable entries", ("saved", "hits", "key", "namespace"), entries)
    largest = (
        [filesizeformat(entry.size), formatting.count(entry.hits), str(entry), entry.namespace]
        for entry in stored.largest
    )
    yield from _table("largest entries", ("size", "hits", "key", "namespace"), largest)
    spaces = (
        [filesizeformat(each.size), formatting.count(each.entries), each.name]
        for each in stored.namespaces
    )
    yield from _table("namespaces by size", ("size", "entries", "namespace"), spaces)
    if stored.counted_at is None:
        yield "  not counted yet: run `llmcache_roll_up`, or schedule the task"


def _line(name: str, now: str, before: str) -> str:
    return f"  {name:<15} {now:>15}   before: {before}"


def _cells(line: Line) -> list[str]:
    totals = line.totals
    return [
        formatting.money(totals.cost_saved),
        formatting.money(totals.cost_spent),
        formatting.count(totals.calls),
        formatting.part(totals.hit_ratio),
        line.name or "-",
    ]


def _table(heading: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield heading
    found = list(rows)
    for *numbers, text in [[*names, ""][: len(found[0])], *found] if found else []:
        yield "  " + "".join(f"{number:>12}  " for number in numbers) + text
    if not found:
        yield "  none"
