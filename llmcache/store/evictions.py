"""Hot copies whose rows an invalidation has removed: written down, removed, and crossed off.

The note, a `PendingEviction`, is written in the transaction that removes the rows. So whatever
happens after that (the hot tier is down, the process is killed) somebody knows which copies are
still to go: the process that could not do it tries again behind its callers, the breaker of the hot
tier before it trusts the copies again, and the task `llmcache.finish_evictions`.

Nobody locks a note. Two who see the same one both remove its copies, which is harmless: at worst
a newer copy goes too, and the next lookup finds its row. To leave a note alone because another one
is at it would not be: who finds no other left would trust copies that are still there.

A copy whose arrival nobody has waited for, since the hot tier took too long, may come at any later
moment, also when its row is gone. It is written down, too, and removed until it cannot come any
more; before that, nobody says that all copies are gone.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.db import transaction
from django.utils import timezone

from llmcache.background import database, scheduler, transactions
from llmcache.background.forks import now_and_in_children
from llmcache.breakers import Use
from llmcache.conf import settings
from llmcache.keys.forms import path_of
from llmcache.outcomes import Tier
from llmcache.resilience import recovery
from llmcache.resilience.failsafe import NOT_THE_TIERS_FAULT, failing_safe, reporting
from llmcache.store import local
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot

#: In the place of keys: all copies there are.
ALL: Final = ("*",)

# So many notes are read at once; each has the keys of one batch.
NOTES_PER_QUERY: Final = 10
# Clocks of two hosts differ: a note is kept so much longer than the copies can live.
CLOCK_SLACK: Final = timedelta(minutes=1)
# What was sent to the hot tier is there by then, or never: a network does not keep it for longer.
ARRIVAL: Final = timedelta(seconds=5)
REDIS_HAS_REFUSED: Final = "redis.exceptions.ResponseError"
# Pauses between two attempts of the process that could not reach the hot tier, in seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
LEFT: Final = "hot copies are still to be removed"


class EvictionsLeft(Exception):
    """There are hot copies that an invalidation has removed the rows of."""


def record(keys: Collection[str], *, are_arriving: bool = False) -> int | None:
    """Write down that the hot copies under `keys` are to go; None when there is no hot tier.

    To be called in the transaction that removes the rows, when they are locked: no copy is made
    after that, so none lives longer than ``HOT_TTL`` from now. `are_arriving`: copies were sent,
    and may come later than that.
    """
    if not keys or not _has_hot_tier():
        return None
    now = timezone.now()
    arrives = now + ARRIVAL if are_arriving else None
    until = (arrives or now) + longest_life()
    row = transactions.rows("PendingEviction").create(
        keys=list(keys), created_at=now, until=until, arrives_until=arrives
    )
    return int(row.pk)


def may_arrive(error: Exception) -> bool:
    """Whether copies that could not be written, because of `error`, may still come to be there.

    Not where the tier has answered, or was not asked; nor in a database, which has a transaction.
    """
    not_sent = (epochs.EpochUnknown, *NOT_THE_TIERS_FAULT)
    if hot.is_in_database() or isinstance(error, not_sent):
        return False
    causes = filter(None, (error, error.__cause__, error.__context__))
    return not any(
        path_of(each) == REDIS_HAS_REFUSED for cause in causes for each in type(cause).__mro__
    )


def longest_life() -> timedelta:
    """How long a hot copy lives at most. Backends count whole seconds."""
    return timedelta(seconds=math.ceil(settings.hot_ttl))


def evict(keys: Collection[str], recorded: int | None) -> bool:
    """Remove the hot copies under `keys` and cross off the note; whether the copies are gone.

    If they are not, this process tries again, behind its callers, until they are.
    """
    if recorded is None:
        local.drop(keys)
        return True
    if not remove_copies(keys):
        finish_in_background()
        return False
    with failing_safe(Tier.DURABLE, "record an eviction in"):
        _cross_off(recorded)
    return True


def evict_when_committed(keys: Collection[str], recorded: int | None) -> set[Tier]:
    """`evict`, now or when the caller's transaction ends; the tiers that are not done by then."""
    work = partial(evict, keys, recorded)
    if not transactions.caller_is_the_writer():
        return set() if work() else {Tier.HOT}
    # A lookup meanwhile may bring the copies back, since others still see the rows.
    transaction.on_commit(work, using=transactions.database_alias(), robust=True)
    # (what is in the database would wait for that end as well)
    if recorded is None or (not hot.is_in_database() and remove_copies(keys)):
        return {Tier.DURABLE}
    return {Tier.DURABLE, Tier.HOT}


def evict_without_rows(keys: Collection[str]) -> set[Tier]:
    """Remove copies that may have lost their rows; `ALL` of them too. The tiers that are not done.

    What fails is written down. Where the backend cannot tell which copies it has, `ALL` are gone
    after ``HOT_TTL``.
    """
    if tuple(keys) == ALL and not _can_remove_all():
        local.clear()
        return {Tier.HOT}
    if remove_copies(keys):
        return set()
    recorded = None
    with failing_safe(Tier.DURABLE, "record an eviction in"):
        recorded = database.run_removal(partial(record, keys), patience=database.WRITE_SECONDS)
    if recorded is not None:
        finish_in_background()
    return {Tier.HOT}


def may_come_back() -> bool:
    """Whether a server could bring back what was removed, and nobody would notice (a proxy)."""
    with reporting(Tier.HOT, "find"):
        return hot.may_bring_back()
    return False


def _can_remove_all() -> bool:
    with reporting(Tier.HOT, "find"):
        return hot.remover_of_all() is not None
    return False


def remove_copies(keys: Collection[str]) -> bool:
    """Remove the hot copies under `keys`, and those here; whether that succeeded.

    While the database cannot tell of which epochs there are some, those go that are known here.
    """
    living = _living_epochs()
    try:
        with failing_safe(Tier.HOT, "remove from"):
            if tuple(keys) == ALL:
                if remove_all := hot.remover_of_all():
                    remove_all()
                return True
            hot.delete(keys, epochs.known() if living is None else living)
            return living is not None
        # A server that takes nothing (it is a replica, or its disk is full) would still be read.
        recovery.distrust(Tier.HOT, EvictionsLeft(LEFT))
        return False
    finally:
        # After the hot ones, of which others could be made here.
        local.clear() if tuple(keys) == ALL else local.drop(keys)


def _living_epochs() -> list[str] | None:
    with failing_safe(Tier.DURABLE, "read the epoch in"):
        return epochs.living() if _has_hot_tier() else []
    return None


def finish_evictions() -> int:
    """Remove the hot copies that are still to go; how many keys that was. Never raises.

    It stops when the hot tier fails, and leaves the rest to the next one who tries. It may be run
    at any time, and by several processes at once.
    """
    return _finish()[0]


def finish_all_evictions() -> bool:
    """`finish_evictions`; whether none is left, so that hot copies can be trusted."""
    return _finish()[1]


def finish_in_background(pause: float = FIRST_PAUSE) -> None:
    """Try after a pause, and after longer and longer ones, until none is left.

    A second call changes nothing. Where there is no thread, the notes are left to another process.
    """
    global _retry
    if _retry is None:
        _retry = scheduler.later(pause, partial(_try_again, pause))


def _try_again(pause: float) -> None:
    global _retry
    _retry = None  # who fails meanwhile does not count on this attempt
    if not finish_all_evictions():
        finish_in_background(min(pause * 2, LONGEST_PAUSE))


def _before_copies_are_trusted() -> None:
    """For the breaker of the hot tier, which stays open when this raises."""
    if not finish_all_evictions():
        raise EvictionsLeft(LEFT)


def _while_it_takes_nothing() -> None:
    """Another process may have removed rows whose copies could not be removed."""
    with failing_safe(Tier.DURABLE, "read"):
        if _has_hot_tier() and database.run(partial(_after, 0)):
            recovery.distrust(Tier.HOT, EvictionsLeft(LEFT))


def _finish() -> tuple[int, bool]:
    done, reached, are_all = 0, 0, True
    with failing_safe(Tier.DURABLE, "record an eviction in"):
        # Without a hot tier there is nothing to be done, and nothing that could be trusted.
        while _has_hot_tier() and (found := database.run(partial(_after, reached))):
            for reached, keys, arrives_until in found:
                if not remove_copies(keys):
                    return done, False
                if arrives_until is not None and arrives_until > timezone.now():
                    are_all = False
                    continue
                _cross_off(reached)
                done += len(keys)
        return done, are_all
    return done, False


def _cross_off(recorded: int) -> None:
    work = transactions.rows("PendingEviction").filter(pk=recorded).delete
    database.run_removal(work, patience=database.WRITE_SECONDS)


def _after(reached: int) -> list[tuple[int, list[str], datetime | None]]:
    rows = transactions.rows("PendingEviction").filter(pk__gt=reached).order_by("pk")
    return list(rows.values_list("pk", "keys", "arrives_until")[:NOTES_PER_QUERY])


def _has_hot_tier() -> bool:
    with reporting(Tier.HOT, "find"):
        return hot.backend() is not None
    return True  # there is one, and it may hold copies, but its settings are broken


def _start_anew() -> None:
    """At the start, and in a forked child: what is planned is planned in the parent."""
    global _retry
    _retry = None


_retry: scheduler.Job | None
now_and_in_children(_start_anew)
recovery.before_closing(Tier.HOT, Use.READ, _before_copies_are_trusted)
recovery.when_a_probe_fails(Tier.HOT, Use.WRITE, _while_it_takes_nothing)
