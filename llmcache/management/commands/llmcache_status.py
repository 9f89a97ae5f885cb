"""``manage.py llmcache_status``: how the tiers are, what is stored, and what is left to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Max, Min

from llmcache.background import database
from llmcache.breakers import Use
from llmcache.outcomes import Tier
from llmcache.reports import formatting, health, stored
from llmcache.resilience import outages, recovery
from llmcache.store.hot import epochs
from llmcache.store.rows import tier as durable

NAMES: Final = {str(tier): words for tier, words in formatting.TIERS.items()}


class Command(BaseCommand):
    help = (
        "Tries both tiers, and tells how much is stored and what is left to do. "
        "The exit code is 1 when a tier fails."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format", choices=("text", "json"), default="text", help="Default: %(default)s."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        status = {
            "hot": _tried(Tier.HOT),
            "durable": _tried(Tier.DURABLE),
            "stored": _answered(_stored),
            "pending_evictions": _answered(_evictions),
            "outages": _answered(_outages),
            "tasks": _answered(_tasks),
        }
        if options["format"] == "json":
            self.stdout.write(json.dumps(status, cls=DjangoJSONEncoder, indent=2))
        else:
            for heading, facts in status.items():
                words = NAMES.get(heading, heading.replace("_", " "))
                self.stdout.write(f"{words}\n{_lines(facts)}")
        if "error" in status["hot"] or "error" in status["durable"]:
            sys.exit(1)


def _tried(tier: Tier) -> dict[str, Any]:
    """What the tier is, and how long it took to use it, or what it failed with."""
    found = health.check(tier, partial(recovery.probe, tier, Use.READ))
    if found.error:
        return {"error": found.error}
    told: dict[str, Any] = {"backend": found.backend, "milliseconds": found.milliseconds}
    if tier is Tier.HOT and found.is_configured:
        told["copies_since"] = _answered(epochs.began_at)
    written = health.check(tier, partial(recovery.probe, tier, Use.WRITE))
    if written.error:
        told["error"] = f"it cannot be written: {written.error}"
    return {name: value for name, value in told.items() if value is not None}


def _answered(ask: Callable[[], Any]) -> Any:
    try:
        return database.run(ask)
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": f"{type(error).__name__}: {error}"}


def _stored() -> dict[str, int]:
    return {
        "entries": durable.entries().count(),
        "expired": durable.entries().outlived().count(),
        "leases": health.held_leases().count(),
    }


def _evictions() -> dict[str, Any]:
    rows = health.pending_evictions()
    ends = rows.aggregate(oldest=Min("created_at"), gone=Max("until"))
    keys = sum(len(some) for some in rows.values_list("keys", flat=True).iterator())
    return {
        "rows": rows.count(),
        "keys": keys,
        "oldest": ends["oldest"],
        "certainly_gone": ends["gone"],
    }


def _outages() -> list[dict[str, Any]]:
    outages.sweep()
    facts = ("process", "tier", "since", "seen_at", "error")
    return list(outages.current().values(*facts))


def _tasks() -> dict[str, dict[str, Any]]:
    return {task.task: _task(task) for task in health.tasks()}


def _task(task: health.TaskHealth) -> dict[str, Any]:
    told: dict[str, Any] = {"last_run": None}
    if run := task.run:
        told = {
            "last_run": run.started_at,
            "seconds": round(run.seconds, 3),
            "done": run.done,
            "error": run.error,
        }
    # (no more are counted)
    return told | {"backlog": min(task.backlog, stored.MOST), "backlog_is_more": task.are_more}


def _lines(facts: Any) -> str:
    if isinstance(facts, dict):
        return "\n".join(
            f"  {name.replace('_', ' '):<15} {_words(value)}" for name, value in facts.items()
        )
    return "\n".join(f"  {_outage(each)}" for each in facts) or "  none"


def _words(value: Any) -> str:
    if value is None:
        return "-"
    return _run(value) if isinstance(value, dict) else str(value)


def _run(facts: dict[str, Any]) -> str:
    more = " or more" if facts["backlog_is_more"] else ""
    waiting = f"{facts['backlog']}{more} rows wait for it"
    if facts["last_run"] is None:
        return f"was never run; {waiting}"
    ended = facts["error"] or f"{facts['done']} rows in {facts['seconds']} s"
    return f"last run {facts['last_run']:%Y-%m-%d %H:%M:%S}: {ended}; {waiting}"


def _outage(facts: dict[str, Any]) -> str:
    who, error = facts["process"], facts["error"]
    return (
        f"{who} without the {facts['tier']} tier since {facts['since']:%Y-%m-%d %H:%M:%S}: {error}"
    )
