"""Copying entries to the hot tier, and taking copies back that should not be there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from llmcache import breakers
from llmcache.background import database, transactions
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import attempt, failing_safe, reporting, tried
from llmcache.store import evictions
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from llmcache.store.hot.epochs import Epoch
from llmcache.store.rows import locks
from llmcache.store.rows import tier as durable


def promote(keys: Collection[str]) -> bool:
    """Copy rows into the hot tier; whether all of them have their copy.

    Each copy is written while its row is held, and a removal takes the row first and then the
    copy: so no copy outlives its row.
    """
    if not keys or not _takes_copies():
        return False
    now = attempt(Tier.HOT, "find the epoch of", hot.epoch)
    if now is None:
        return False
    are_sent = False
    with failing_safe(Tier.DURABLE, "hold rows of"):
        try:
            with durable.held(keys) as rows:
                if epochs.stands(now):
                    are_sent = bool(rows) and _copy(rows, now)
                    return are_sent and len(rows) == len(keys)
            epochs.learn()
        except locks.Busy:
            pass
        return False  # the next who looks it up will do it
    if are_sent:
        _take_back(keys)
    return False


def _copy(rows: Mapping[str, tuple[bytes, float | None]], now: Epoch) -> bool:
    """Write the copies of rows that are held; whether they are there."""

    def write() -> None:
        try:
            hot.write_many(rows, now)
        except Exception as error:
            if evictions.may_arrive(error):
                evictions.record(rows, are_arriving=True)
                evictions.finish_in_background()
            raise

    return tried(Tier.HOT, "write", write).error is None


def _take_back(keys: Collection[str]) -> None:
    """The rows were not held to the end: somebody may have removed them before the copies came."""
    with reporting(Tier.DURABLE, "record an eviction in"):
        # (on another connection than the one that may just have been lost)
        database.later(
            partial(reporting_all, lambda: evictions.evict(keys, evictions.record(keys)))
        )


def _takes_copies() -> bool:
    """Whether there is a hot tier, and its circuit is closed."""
    with reporting(Tier.HOT, "find"):
        is_there = hot.backend() is not None and breakers.is_up(Tier.HOT)
        # (no rollback would undo a copy: the next test would find it)
        return is_there and not transactions.will_be_undone()
    return False


def reporting_all(work: Callable[[], object]) -> None:
    with failing_safe(Tier.DURABLE, "write"):
        work()


def promote_later(keys: Collection[str]) -> None:
    """The caller, who has the answers, need not wait for their copies.

    Nor while it is made: to be called by who has been told that the rows are there.
    """
    if database.may_put_off():
        with reporting(Tier.DURABLE, "hold rows of"):
            database.later(partial(promote, keys), writing=True)


@dataclass(slots=True)
class OlderCopy:
    """The hot copy of the answer that is replaced, which may be of other tags and of another age.

    It goes while the row is held, so that nobody makes it again: an invalidation finds the row of
    the new answer, and would not know that the old one is still served. Where it cannot go then, it
    is written down.
    """

    key: str
    recorded: int | None = None

    def remove(self) -> None:
        # (A cache in the database would take part in the transaction, and could spoil it.)
        may_go = breakers.is_up(Tier.HOT) and not hot.is_in_database()
        is_gone = may_go and evictions.remove_copies([self.key])
        self.recorded = None if is_gone else evictions.record([self.key])

    def is_gone(self) -> bool:
        """Whether it is, now that the row is committed; else somebody is at it."""
        if self.recorded is None:
            return True
        if breakers.is_up(Tier.HOT):
            return evictions.evict([self.key], self.recorded)
        evictions.finish_in_background()
        return False
