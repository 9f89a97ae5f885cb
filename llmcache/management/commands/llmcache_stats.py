"""``manage.py llmcache_stats``: what the calls of a period saved and cost, and what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from llmcache.background import database
from llmcache.management.base import LLMCacheCommand
from llmcache.models import CacheEntry
from llmcache.providers.pricing import dollars
from llmcache.reports.formatting import count, duration, money, part
from llmcache.reports.periods import DEFAULT, NAMES, Period, read_period
from llmcache.reports.stored import TOP, Stored
from llmcache.reports.usage import Line, ReasonCount, Totals, Usage

# What people are told of `Totals`: the words, where it is, and how it is written.
SUMMARY: Final = (
    ("calls", "calls", count),
    ("hit ratio", "hit_ratio", part),
    ("money saved", "cost_saved", money),
    ("money spent", "cost_spent", money),
    ("tokens saved", "tokens_saved", count),
    ("time saved", "seconds_saved", duration),
    ("unpriced calls", "unpriced", count),
)


class Command(LLMCacheCommand):
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
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        period, top = _period(options), options["top"]
        if top < 1:
            raise CommandError(f"--top is 1 or more; not {top}.")
        usage, stored = database.run(
            lambda: (Usage.of(period, top=top), Stored.read(top=top)), patience=None
        )
        self.tell(options, _facts(usage, stored), _lines(usage, stored))


def _period(options: dict[str, Any]) -> Period:
    try:
        days = [options[name] and date.fromisoformat(options[name]) for name in ("first", "last")]
    except ValueError as error:
        raise CommandError(f"--from and --to take days, as in 2026-11-30: {error}.") from None
    return read_period(options["period"], *days)


# For programs


def _facts(usage: Usage, stored: Stored) -> dict[str, Any]:
    """What is told, by name. Money is in US dollars."""
    return {
        "period": _named(usage.period, "name", "start", "end", "before"),
        "totals": _totals(usage.totals),
        "before": _totals(usage.before),
        "tiers": usage.tiers,
        "steps": [{"start": step.start, **_totals(step.totals)} for step in usage.steps],
        "namespaces": _by_name(usage.namespaces),
        "models": _by_name(usage.models),
        "response_models": _by_name(usage.response_models),
        "bypasses": [_reason(reason) for reason in usage.bypasses],
        "not_stored": [_reason(reason) for reason in usage.not_stored],
        "stored": {
            **_named(stored, "entries", "counted_at"),
            "bytes": stored.size,
            "namespaces": [
                {**_named(space, "name", "entries"), "bytes": space.size}
                for space in stored.namespaces
            ],
            "most_valuable": [_entry(entry) for entry in stored.most_valuable],
            "largest": [_entry(entry) for entry in stored.largest],
        },
    }


def _named(holder: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(holder, name) for name in names}


def _totals(totals: Totals) -> dict[str, Any]:
    tokens = [
        f"{kind}_tokens_{fate}" for fate in ("saved", "spent") for kind in ("input", "output")
    ]
    return {
        **_named(totals, "calls", "outcomes", "hit_ratio", "stored", "bytes_stored"),
        **_named(totals, "seconds_saved", *tokens),
        "cost_saved": _dollars(totals.cost_saved),
        "cost_spent": _dollars(totals.cost_spent),
        "unpriced_calls": totals.unpriced,
    }


def _by_name(lines: list[Line]) -> list[dict[str, Any]]:
    return [{"name": line.name, **_totals(line.totals)} for line in lines]


def _reason(reason: ReasonCount) -> dict[str, Any]:
    told = _named(reason, "calls", "remedy")
    return {"reason_code": reason.code, "reason": reason.words, **told}


def _entry(entry: CacheEntry) -> dict[str, Any]:
    return {
        **_named(entry, "key", "namespace", "model", "response_model", "hits"),
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
    for words, name, written in SUMMARY:
        yield _line(words, written(getattr(now, name)), written(getattr(before, name)))
    for outcome, calls in now.outcomes.items():
        yield _line(outcome, count(calls), count(before.outcomes[outcome]))
    for what, lines in (
        ("namespace", usage.namespaces),
        ("model", usage.models),
        ("response model", usage.response_models),
    ):
        yield from _table(f"by {what}", ("saved", "spent", "calls", "hits"), map(_cells, lines))
    for what, reasons in (("skipped", usage.bypasses), ("not stored", usage.not_stored)):
        cells = ([count(each.calls), f"{each.words}. {each.remedy}"] for each in reasons)
        yield from _table(what, ("calls", "why, and what to do"), cells)
    yield from _table(
        "most valuable entries",
        ("saved", "hits", "key", "namespace"),
        ([money(each.saved or 0), *_entry_cells(each)] for each in stored.most_valuable),
    )
    yield from _table(
        "largest entries",
        ("size", "hits", "key", "namespace"),
        ([filesizeformat(each.size), *_entry_cells(each)] for each in stored.largest),
    )
    yield from _table(
        "namespaces by size",
        ("size", "entries", "namespace"),
        ([filesizeformat(each.size), count(each.entries), each.name] for each in stored.namespaces),
    )
    if stored.counted_at is None:
        yield "  not counted yet: run `llmcache_roll_up`, or schedule the task"


def _line(name: str, now: str, before: str) -> str:
    return f"  {name:<15} {now:>15}   before: {before}"


def _cells(line: Line) -> list[str]:
    totals = line.totals
    money_cells = [money(totals.cost_saved), money(totals.cost_spent)]
    return [*money_cells, count(totals.calls), part(totals.hit_ratio), line.name or "-"]


def _entry_cells(entry: CacheEntry) -> list[str]:
    return [count(entry.hits), str(entry), entry.namespace]


def _table(heading: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield heading
    found = list(rows)
    for *numbers, text in [[*names, ""][: len(found[0])], *found] if found else []:
        yield "  " + "".join(f"{number:>12}  " for number in numbers) + text
    if not found:
        yield "  none"
