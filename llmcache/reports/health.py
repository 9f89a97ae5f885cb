"""How the tiers are, what is left to do, and whether the tasks are run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from django.utils import timezone

from llmcache.background import transactions
from llmcache.breakers import State, Use, breakers
from llmcache.conf import settings
from llmcache.models import Outage, TaskRun
from llmcache.outcomes import Tier
from llmcache.reports import stored
from llmcache.resilience import outages
from llmcache.store.hot import tier as hot
from llmcache.store.rows import tier as durable
from llmcache.usage import rollup, task_runs

# Where nothing is configured, nothing can fail.
NO_HOT_TIER: Final = "none"
# So many processes are named that go without a tier.
MOST_OUTAGES: Final = 10


@dataclass(frozen=True, slots=True)
class TierHealth:
    """What a tier is, and how long it took to answer, or what it failed with.

    `state` is that of the breaker, as this process sees the tier, and `writing` that of the one for
    what is written.
    """

    tier: Tier
    state: State
    writing: State
    backend: str = ""
    milliseconds: float | None = None
    error: str = ""

    @property
    def is_used(self) -> bool:
        """Whether this process reads it and writes it."""
        return self.state is self.writing is State.CLOSED

    @property
    def is_configured(self) -> bool:
        return self.backend != NO_HOT_TIER


@dataclass(frozen=True, slots=True)
class TaskHealth:
    """A task: its last run, None when it was never run; and how many rows wait for it."""

    task: str
    run: TaskRun | None
    backlog: int

    @property
    def are_more(self) -> bool:
        """Whether more rows wait than are counted."""
        return self.backlog > stored.MOST


@dataclass(frozen=True, slots=True)
class Health:
    """What a page says of health. `is_small_store`: see `stored.is_small_store`."""

    tiers: list[TierHealth]
    outages: list[Outage]
    leases: int
    pending_evictions: int
    tasks: list[TaskHealth]
    is_small_store: bool

    @property
    def is_well(self) -> bool:
        """Whether nobody has to do anything about it."""
        return not (
            self.outages
            or self.pending_evictions
            or any(tier.error or not tier.is_used for tier in self.tiers)
            or any(task.run and task.run.error for task in self.tasks)
        )

    @classmethod
    def read(cls) -> Self:
        """In three queries at most, none of which goes on for long."""
        counts: dict[str, int] = {}
        durable_tier = check(Tier.DURABLE, lambda: counts.update(read_counts()))
        hot_tier = check(Tier.HOT, lambda: hot.values(["llmcache:health"]))
        tiers = [durable_tier, hot_tier]
        if durable_tier.error:
            return cls(tiers, [], 0, 0, [], True)
        return cls(
            tiers,
            list(outages.current()[:MOST_OUTAGES]) if counts["outages"] else [],
            counts["leases"],
            counts[task_runs.FINISH_EVICTIONS],
            read_tasks(counts),
            counts["entries"] <= stored.COUNTED_AT_ONCE,
        )


def check(tier: Tier, use: Callable[[], object]) -> TierHealth:
    """Use `tier`, and tell how that went. Raises nothing."""
    states = breakers[tier, Use.READ].state, breakers[tier, Use.WRITE].state
    backend, started = "", time.perf_counter()
    try:
        backend = f"{transactions.database_name()} ({transactions.database_alias()})"
        if tier is Tier.HOT:
            backend = _hot_tier()
        if backend == NO_HOT_TIER:
            return TierHealth(tier, *states, backend)
        use()
    except Exception as error:  # noqa: BLE001 - to tell it is what this is for
        return TierHealth(tier, *states, backend, error=f"{type(error).__name__}: {error}")
    return TierHealth(tier, *states, backend, round((time.perf_counter() - started) * 1000, 2))


def held_leases() -> Any:
    leases = transactions.rows("Lease")
    return leases.filter(expires_at__gt=timezone.now()).exclude(token="")


def read_counts() -> dict[str, int]:
    return stored.count_at_most(
        {
            task_runs.EXPIRE_ENTRIES: durable.entries().outlived(),
            task_runs.FINISH_EVICTIONS: transactions.rows("PendingEviction"),
            task_runs.ROLL_UP_USAGE: rollup.hours(rollup.first_day_of_hours()),
            "outages": outages.current().order_by(),
            "leases": held_leases(),
            "entries": durable.entries(),
        }
    )


def read_tasks(backlogs: dict[str, int]) -> list[TaskHealth]:
    """The tasks that are to be run from time to time."""
    last = {run.task: run for run in task_runs.rows()}
    return [
        TaskHealth(task, last.get(task), backlogs[task])
        for task in (task_runs.EXPIRE_ENTRIES, task_runs.FINISH_EVICTIONS, task_runs.ROLL_UP_USAGE)
    ]


def _hot_tier() -> str:
    backend = hot.backend()
    if backend is None:
        return NO_HOT_TIER
    # (of a twin, the class that the project has named)
    named = next(each for each in type(backend).__mro__ if "<locals>" not in each.__qualname__)
    return f"{named.__module__}.{named.__qualname__} ({settings.cache})"
