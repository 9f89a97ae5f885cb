"""``manage.py llmcache_status``: how the tiers are, what is stored, and what is left to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from django.core.management.base import CommandParser
from django.db.models import Max, Min

from llmcache.background import database, transactions
from llmcache.breakers import Use
from llmcache.management.base import LLMCacheCommand
from llmcache.outcomes import Tier
from llmcache.reports import formatting, health, stored
from llmcache.resilience import outages, recovery
from llmcache.store.hot import epochs
from llmcache.store.rows import tier as durable

NAMES: Final = {str(tier): words for tier, words in formatting.TIERS.items()}


class Command(LLMCacheCommand):
    help = (
        "Tries both tiers, and tells how much is stored and what is left to do. "
        "The exit code is 1 when a tier fails."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        status = {
            "hot": _tried(Tier.HOT),
            "durable": _tried(Tier.DURABLE),
            "stored": _answered(_stored),
            "pending_evictions": _answered(_evictions),
            "outages": _answered(_outages),
            "tasks": _answered(_tasks),
        }
        self.tell(options, status, _lines(status))
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
    except Exception as error:  # noqa: BLE001 - to tell it is what this is for
        return {"error": f"{type(error).__name__}: {error}"}


def _stored() -> dict[str, int]:
    return {
        "entries": durable.entries().count(),
        "expired": durable.entries().outlived().count(),
        "leases": health.held_leases().count(),
    }


def _evictions() -> dict[str, Any]:
    rows = transactions.rows("PendingEviction")
    keys = sum(len(some) for some in rows.values_list("keys", flat=True).iterator())
    ends = rows.aggregate(oldest=Min("created_at"), certainly_gone=Max("until"))
    return {"rows": rows.count(), "keys": keys, **ends}


def _outages() -> list[Any]:
    outages.sweep()
    return list(outages.current().values("process", "tier", "since", "seen_at", "error"))


def _tasks() -> dict[str, dict[str, Any]]:
    return {task.task: _task(task) for task in health.read_tasks(health.read_counts())}


def _task(task: health.TaskHealth) -> dict[str, Any]:
    # (no more are counted)
    waiting = {"backlog": min(task.backlog, stored.MOST), "backlog_is_more": task.are_more}
    if task.run is None:
        return {"last_run": None, **waiting}
    began, seconds = task.run.started_at, round(task.run.seconds, 3)
    ended = {"seconds": seconds, "done": task.run.done, "error": task.run.error}
    return {"last_run": began, **ended, **waiting}


def _lines(status: dict[str, Any]) -> Iterator[str]:
    for heading, facts in status.items():
        yield str(NAMES.get(heading, heading.replace("_", " ")))
        if isinstance(facts, dict):
            for name, value in facts.items():
                yield f"  {name.replace('_', ' '):<15} {_words(value)}"
        else:
            yield from map(_outage, facts) if facts else ["  none"]


def _words(facts: Any) -> str:
    if not (isinstance(facts, dict) and "backlog" in facts):
        return "-" if facts is None else str(facts)
    more = " or more" if facts["backlog_is_more"] else ""
    waiting = f"{facts['backlog']}{more} rows wait for it"
    if facts["last_run"] is None:
        return f"was never run; {waiting}"
    ended = facts["error"] or f"{facts['done']} rows in {facts['seconds']} s"
    return f"last run {facts['last_run']:%Y-%m-%d %H:%M:%S}: {ended}; {waiting}"


def _outage(facts: dict[str, Any]) -> str:
    since = f"since {facts['since']:%Y-%m-%d %H:%M:%S}"
    return f"  {facts['process']} without the {facts['tier']} tier {since}: {facts['error']}"
