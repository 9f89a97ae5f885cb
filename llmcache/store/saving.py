"""Storing an entry in the tiers: at once, patiently, or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from django.db import transaction

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
# So many entries are written in one transaction, for which a removal may have to wait.
ROWS_AT_ONCE: Final = 100
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
            promote_later([draft.key])
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
            promote_later([draft.key])
        return refusal
    return troubles[0]


def save_many(drafts: Sequence[Draft], generation: int | None) -> list[Reason | None]:
    """`save` for each, some of them in one transaction."""
    refusals: list[Reason | None] = []
    for some in _batches(drafts):
        troubles: list[Reason] = []
        with failing_safe(Tier.DURABLE, "write", troubles):
            if transactions.caller_is_the_writer():  # (each is put off)
                told = [save(draft, generation) for draft in some]
            else:
                work = partial(_save_each, some, generation)
                told = database.run(work, patience=_write_patience(), writing=True)
            refusals += told
        refusals += troubles * len(some)
    return refusals


async def asave_many(drafts: Sequence[Draft], generation: int | None) -> list[Reason | None]:
    """`save_many` for a coroutine."""
    refusals: list[Reason | None] = []
    for some in _batches(drafts):
        troubles: list[Reason] = []
        with failing_safe(Tier.DURABLE, "write", troubles):
            if await transactions.acaller_is_the_writer():
                told = [await asave(draft, generation) for draft in some]
            else:
                work = partial(_save_each, some, generation)
                told = await database.arun(work, patience=_write_patience(), writing=True)
            refusals += told
        refusals += troubles * len(some)
    return refusals


def _batches(drafts: Sequence[Draft]) -> Iterator[Sequence[Draft]]:
    return (drafts[start : start + ROWS_AT_ONCE] for start in range(0, len(drafts), ROWS_AT_ONCE))


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
        promote_later([draft.key])

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
    if draft.parts and refusal:
        _remove_parts(draft, refusal)
    local.drop([draft.key])
    return refusal


def _save_each(drafts: Sequence[Draft], generation: int | None) -> list[Reason | None]:
    """`_save` for several, in one transaction."""
    most, alias = settings.max_entry_bytes, transactions.database_alias()
    older = {draft.key: OlderCopy(draft.key) for draft in drafts if len(draft.payload) <= most}

    def write() -> dict[str, Reason | None]:
        with transaction.atomic(using=alias):
            return {
                draft.key: durable.write(draft, generation, replaced=older[draft.key].remove)
                # (in one order: two that write the same do not wait for each other)
                for draft in sorted(drafts, key=attrgetter("key"))
                if draft.key in older
            }

    patiently = partial(locks.again, write, ATTEMPTS, locks.is_busy)
    refusals = locks.past_deadlocks(patiently)
    stored = [key for key, copy in older.items() if copy.is_gone() and refusals[key] is None]
    for draft in drafts:
        if draft.parts and (refusal := refusals.get(draft.key)):
            _remove_parts(draft, refusal)
    local.drop(older)
    if database.may_put_off():
        promote_later(stored)
    else:
        promotion.promote(stored)
    return [refusals.get(draft.key, ReasonCode.TOO_LARGE()) for draft in drafts]


def _remove_parts(draft: Draft, refusal: Reason) -> None:
    """What was invalidated while it was made would be made of the same answers again.

    By another one at the same time, it may have been.
    """
    if refusal.code is not ReasonCode.INVALIDATED:
        return
    keys = [draft.key, *draft.parts]
    doomed = [*persistently(partial(parts.below, keys)), *draft.parts, draft.key]
    for batch in batches.remove_keys(doomed, batches.Pace(most=KEYS_PER_QUERY)):
        evictions.evict_when_committed(batch.keys, batch.recorded)
