"""Storing an entry in the tiers: at once, patiently, or later."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from llmcache import breakers
from llmcache.background import database, transactions
from llmcache.background.database import persistently
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience.failsafe import attempt, failing_safe
from llmcache.store import batches, evictions, local, promotion
from llmcache.store.lookups import KEYS_PER_QUERY, found_in
from llmcache.store.promotion import OlderCopy, promote_later, reporting_all
from llmcache.store.records import Draft, Found
from llmcache.store.rows import late_answers, locks, parts, waiting
from llmcache.store.rows import tier as durable

# A write that finds another one writing (SQLite) is tried for an hour: each time it waits as long
# as the connection waits for the lock (5 seconds by default).
ATTEMPTS: Final = 720
# While the circuit of the database is open, an answer that was paid for is written all the same, if
# it can be; nobody waits for that longer than so.
CIRCUIT_OPEN_SECONDS: Final = 0.25


def copy_of(draft: Draft) -> Found | None:
    """The entry that `draft` makes, as a copy in this process; None when it is fresh no more."""
    with failing_safe(Tier.LOCAL, "read"):
        return found_in(draft.key, draft.payload, Tier.LOCAL, stale=False)
    return None


def generation() -> int | None:
    """What is to be known before a question is asked, and told to `save` (see `late_answers`)."""
    return attempt(Tier.DURABLE, "read", partial(database.run, late_answers.generation))


async def ageneration() -> int | None:
    """`generation` for a coroutine."""
    with failing_safe(Tier.DURABLE, "read"):
        return await database.arun(late_answers.generation)
    return None


def save(draft: Draft, generation: int | None = None) -> Reason | None:
    """Store an entry, row first, then hot copy. None: stored, or soon to be; else why not.

    `generation`: what `generation` gave before the question was asked.
    """
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if len(draft.payload) > settings.max_entry_bytes:
            return ReasonCode.TOO_LARGE()
        work = partial(_save, draft, generation)
        if transactions.caller_is_the_writer():
            _put_off(draft, generation, work)
            return None
        refusal = database.run(work, patience=_write_patience(), writing=True)
        if refusal is None:
            promote_later(draft.key)
        return refusal
    return troubles[0]


async def asave(draft: Draft, generation: int | None = None) -> Reason | None:
    """`save` for a coroutine: the tiers are written on another thread."""
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if len(draft.payload) > settings.max_entry_bytes:
            return ReasonCode.TOO_LARGE()
        work = partial(_save, draft, generation)
        if await transactions.acaller_is_the_writer():
            _put_off(draft, generation, work)
            return None
        refusal = await database.arun(work, patience=_write_patience(), writing=True)
        if refusal is None:
            promote_later(draft.key)
        return refusal
    return troubles[0]


def save_many(drafts: list[Draft], generation: int | None) -> list[Reason | None]:
    """`save` for each, for which the caller waits once."""
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if transactions.caller_is_the_writer():  # (each is put off)
            return [save(draft, generation) for draft in drafts]
        work = partial(_save_each, drafts, generation)
        refusals = database.run(work, patience=_write_patience(), writing=True)
        promote_later(
            *(each.key for each, refusal in zip(drafts, refusals, strict=True) if not refusal)
        )
        return refusals
    return [troubles[0]] * len(drafts)


async def asave_many(drafts: list[Draft], generation: int | None) -> list[Reason | None]:
    """`save_many` for a coroutine."""
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if await transactions.acaller_is_the_writer():
            return [await asave(draft, generation) for draft in drafts]
        work = partial(_save_each, drafts, generation)
        refusals = await database.arun(work, patience=_write_patience(), writing=True)
        promote_later(
            *(each.key for each, refusal in zip(drafts, refusals, strict=True) if not refusal)
        )
        return refusals
    return [troubles[0]] * len(drafts)


def _save_each(drafts: list[Draft], generation: int | None) -> list[Reason | None]:
    most = settings.max_entry_bytes
    return [
        ReasonCode.TOO_LARGE() if len(draft.payload) > most else _save(draft, generation)
        for draft in drafts
    ]


def _write_patience() -> float:
    """For how many seconds a caller waits for a write."""
    return database.WRITE_SECONDS if breakers.is_up(Tier.DURABLE) else CIRCUIT_OPEN_SECONDS


def _put_off(draft: Draft, generation: int | None, work: Callable[[], object]) -> None:
    """Write once the caller's transaction has ended, and serve it meanwhile."""

    def write() -> None:
        try:
            reporting_all(work)
        finally:
            waiting.discard(draft)
        promote_later(draft.key)

    waiting.add(draft, generation)
    try:
        database.later(write, writing=True)
    except BaseException:
        waiting.discard(draft)
        raise


def _save(draft: Draft, generation: int | None) -> Reason | None:
    """Store an entry in both tiers; why not, where it must not be stored."""
    older = OlderCopy(draft.key)
    write = partial(durable.write, draft, generation, replaced=older.remove)
    # (again and again where another one is the writer: it was paid for)
    patiently = partial(locks.again, write, ATTEMPTS, locks.is_busy)
    refusal = locks.past_deadlocks(patiently)
    if older.is_gone() and refusal is None and not database.may_put_off():
        promotion.promote([draft.key])
    if draft.parts and refusal and refusal.code is ReasonCode.INVALIDATED:
        _remove_parts(draft)
    local.drop([draft.key])
    return refusal


def _remove_parts(draft: Draft) -> None:
    """What was invalidated while it was made would be made of the same answers again.

    By another one at the same time, it may have been.
    """
    keys = [draft.key, *draft.parts]
    doomed = [*persistently(partial(parts.below, keys)), *draft.parts, draft.key]
    for batch in batches.remove_keys(doomed, batches.Pace(most=KEYS_PER_QUERY)):
        evictions.evict_when_committed(batch.keys, batch.recorded)
