"""Looking an entry up through the tiers, and storing one in them."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from django.db import OperationalError
from django.utils import timezone

from llmcache import signals
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.conf import settings
from llmcache.exceptions import CorruptEntry
from llmcache.outcomes import Tier
from llmcache.store import (
    breaker,
    durable,
    evictions,
    gate,
    hits,
    hot,
    late,
    local,
    placement,
)
from llmcache.store.durable import Draft
from llmcache.store.gathering import Gathering
from llmcache.store.safety import aattempt, attempt, failing_safe, logger, reporting


@dataclass(slots=True)
class Found:
    """An entry that was found, and which tier had it.

    `expires` in seconds since the epoch; `stale_for`: how many seconds ago that was, 0 while it is
    fresh.
    """

    body: bytes
    tier: Tier
    expires: float | None
    stale_for: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.stale_for


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing that may be served; `reason` tells of trouble, and is empty for a plain miss."""

    reason: str = ""


# A write that finds another one writing (SQLite) is tried for an hour: each time it waits as long
# as the connection waits for the lock (5 seconds by default).
ATTEMPTS: Final = 720

FAILED: Final = object()

# So many keys are looked up by one query: databases bound its parameters.
KEYS_PER_QUERY: Final = 500

# While the database is given a rest, an answer that was paid for is written all the same, if it can
# be; nobody waits for that longer than so.
RESTING_SECONDS: Final = 0.25

#: A key, and whether an entry that has expired will do.
Wanted = tuple[str, bool]

TOO_LARGE: Final = "the answer is larger than LLMCACHE['MAX_ENTRY_BYTES']"


def lookup(key: str, *, stale: bool = False) -> Found | Missing:
    """The entry under `key`, from the first tier that has it.

    `stale`: an entry that has expired, and has not been removed yet, will do.
    """
    looking = local.begin()
    copy = local.get(key) if looking else None
    if copy is not None:
        hits.count(key)
        return copy
    found = peek(key, stale=stale)
    if isinstance(found, Found):
        hits.count(key)
        if looking and found.fresh:
            _keep(key, found, looking)
    return found


def peek(key: str, *, stale: bool = False) -> Found | Missing:
    """`lookup` for who may not serve what is found; `count_hit` is for who does.

    Not from a copy in this process: it is for who wants to know what is stored.
    """
    troubles: list[str] = []
    found = _lookup_rest(key, stale, troubles)
    return Missing("; ".join(troubles)) if found is None else found


async def alookup(key: str, *, stale: bool = False) -> Found | Missing:
    """`lookup` for a coroutine: Redis is asked on the event loop, the rest on another thread."""
    looking = local.begin()
    found = local.get(key) if looking else None
    if found is not None:
        hits.count(key)
        return found
    troubles: list[str] = []
    reply = _ask_hot(key)
    if reply is not None:
        data = await aattempt(Tier.HOT, "read", reply, troubles)
        found = _found(key, data, Tier.HOT, stale=False)
    if found is None:
        rest = partial(_lookup_rest, key, stale, troubles, ask_hot=reply is None)
        with failing_safe(Tier.DURABLE, "read", troubles):
            found = await placement.arun(rest)
    if found is None:
        return Missing("; ".join(troubles))
    hits.count(key)
    if looking and found.fresh:
        _keep(key, found, looking)
    return found


def lookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """The entries under `keys`, in one round trip a tier (one for each `KEYS_PER_QUERY` rows).

    `stale`: those of the keys for which an entry that has expired will do. No hit is counted
    (`count_hit` does that): one entry may serve several calls, or none.
    """
    troubles: list[str] = []
    looking = local.begin()
    copies = {key: local.get(key) for key in keys} if looking else {}
    found = {key: copy for key, copy in copies.items() if copy is not None}
    read = _lookup_many_hot([key for key in keys if key not in found], troubles)
    rest = [key for key in keys if key not in found and key not in read]
    for start in range(0, len(rest), KEYS_PER_QUERY):
        some = rest[start : start + KEYS_PER_QUERY]
        read |= _lookup_many_durable(some, stale, troubles)
    for key, each in read.items() if looking else ():
        if looking and each.fresh:
            _keep(key, each, looking)
    found |= read
    missing = Missing("; ".join(troubles))
    return {key: found.get(key, missing) for key in keys}


async def alookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """`lookup_many` for a coroutine: the tiers are asked on another thread."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "read", troubles):
        # (no thread is needed to look nothing up)
        work = partial(lookup_many, keys, stale=stale)
        return await placement.arun(work, patience=_patience(keys)) if keys else {}
    return dict.fromkeys(keys, Missing(troubles[0]))


def count_hit(key: str) -> None:
    """Note that what `peek` or `lookup_many` found under `key` was served once."""
    hits.count(key)


def copy_of(draft: Draft) -> Found | None:
    """The entry that `draft` makes, as a copy in this process; None when it is fresh no more."""
    with failing_safe(Tier.LOCAL, "read"):
        return _found(draft.key, draft.payload, Tier.LOCAL, stale=False)
    return None


def generation() -> int | None:
    """What is to be noted before a question is asked, and told to `save` (see `late`)."""
    return attempt(Tier.DURABLE, "read", partial(placement.run, late.generation))


async def ageneration() -> int | None:
    """`generation` for a coroutine."""
    with failing_safe(Tier.DURABLE, "read"):
        return await placement.arun(late.generation)
    return None


def save(draft: Draft, since: int | None = None) -> str | None:
    """Store an entry, row first, then hot copy. None: stored, or soon to be; else why not.

    `since`: the `generation` noted before the question was asked.
    """
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if len(draft.payload) > settings.max_entry_bytes:
            return TOO_LARGE
        work = partial(_save, draft, since)
        if placement.caller_is_the_writer():
            placement.later(partial(_reporting, work), writing=True)
            return None
        return placement.run(work, patience=_write_patience(), writing=True)
    return troubles[0]


async def asave(draft: Draft, since: int | None = None) -> str | None:
    """`save` for a coroutine: the tiers are written on another thread."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if len(draft.payload) > settings.max_entry_bytes:
            return TOO_LARGE
        work = partial(_save, draft, since)
        if await placement.acaller_is_the_writer():
            placement.later(partial(_reporting, work), writing=True)
            return None
        return await placement.arun(work, patience=_write_patience(), writing=True)
    return troubles[0]


def _keep(key: str, found: Found, looking: local.Looking) -> None:
    with reporting(Tier.LOCAL, "write"):
        if not placement.will_be_undone():
            local.put(key, found, looking)


def refuse(key: str, tier: Tier, error: Exception) -> None:
    """Report an entry that must not be served: a miss, and never an exception."""
    logger.warning("llmcache: the %s tier holds a bad entry under %s: %s", tier, key, error)
    signals.send(signals.entry_refused, tier, key=key, tier=tier, error=error)


def _ask_hot(key: str) -> Awaitable[bytes | None] | None:
    """The hot copy, asked for on the event loop; None where that cannot be."""
    with suppress(Exception):  # what is wrong is told by the thread that asks in its place
        return hot.ask(key) if breaker.is_up(Tier.HOT) else None
    return None


def _lookup_rest(
    key: str, stale: bool, troubles: list[str], *, ask_hot: bool = True
) -> Found | None:
    found = _lookup_hot(key, troubles) if ask_hot else None
    return found or _lookup_durable(key, stale, troubles)


def _lookup_hot(key: str, troubles: list[str]) -> Found | None:
    data = attempt(Tier.HOT, "read", partial(hot.read, key), troubles)
    return _found(key, data, Tier.HOT, stale=False)


def _lookup_durable(key: str, stale: bool, troubles: list[str]) -> Found | None:
    return attempt(Tier.DURABLE, "read", partial(_read_one, (key, stale)), troubles)


def _read_one(wanted: Wanted) -> Found | None:
    if placement.runs_here():
        return placement.run(partial(_read_wanted, [wanted])).get(wanted)
    return _gathering.look_up(wanted).result(placement.READ_SECONDS)


def _read_wanted(several: Collection[Wanted]) -> dict[Wanted, Found]:
    found = _read({key for key, _ in several}, {key for key, stale in several if stale})
    return {
        (key, stale): found[key]
        for key, stale in several
        if key in found and (stale or found[key].fresh)
    }


def _lookup_many_hot(keys: Collection[str], troubles: list[str]) -> dict[str, Found]:
    copies = attempt(Tier.HOT, "read", partial(hot.read_many, keys), troubles, default={})
    found = {key: _found(key, data, Tier.HOT, stale=False) for key, data in copies.items()}
    return {key: each for key, each in found.items() if each is not None}


def _lookup_many_durable(
    keys: list[str], stale: Collection[str], troubles: list[str]
) -> dict[str, Found]:
    work = partial(placement.run, partial(_read, keys, stale), patience=_patience(keys))
    return attempt(Tier.DURABLE, "read", work, troubles, default={})


def _patience(keys: Collection[str]) -> float:
    """Many rows take a moment longer."""
    return placement.READ_SECONDS * (1 + len(keys) / KEYS_PER_QUERY)


def _read(keys: Collection[str], stale: Collection[str]) -> dict[str, Found]:
    """What the rows have under `keys`; what is fresh of it gets a hot copy."""
    rows = _rows(keys, expired_too=bool(stale))
    read = {key: _found(key, rows[key], Tier.DURABLE, stale=key in stale) for key in rows}
    found = {key: each for key, each in read.items() if each is not None}
    _promote([key for key, each in found.items() if each.fresh])
    return found


def _rows(keys: Collection[str], *, expired_too: bool) -> dict[str, bytes]:
    if len(keys) > 1:
        return durable.read_many(keys, expired_too=expired_too)
    data = {key: durable.read(key, expired_too=expired_too) for key in keys}
    return {key: each for key, each in data.items() if each is not None}


def _found(key: str, data: bytes | None, tier: Tier, *, stale: bool) -> Found | None:
    if data is None:
        return None
    try:
        envelope = unseal(ANSWER, key, data)
    except CorruptEntry as error:
        refuse(key, tier, error)
        return None
    expires = envelope.expires
    stale_for = 0.0 if expires is None else max(0.0, time.time() - expires)
    return Found(envelope.body, tier, expires, stale_for) if stale or not stale_for else None


def _promote(keys: Collection[str]) -> bool:
    """Copy rows into the hot tier; whether all of them have their copy.

    Each copy is written while its row is held, and a removal takes the row first and then the
    copy: so no copy outlives its row.
    """
    if not keys or not _takes_copies():
        return False
    are_sent = False
    with failing_safe(Tier.DURABLE, "hold rows of"):
        try:
            with durable.held(keys) as rows:
                are_sent = bool(rows) and _copy(rows)
                return are_sent and len(rows) == len(keys)
        except gate.Busy:
            return False  # the next who looks it up will do it
    if are_sent:
        _take_back(keys)
    return False


def _copy(rows: dict[str, tuple[bytes, datetime | None]]) -> bool:
    """Write the copies of rows that are held; whether they are there."""

    def write() -> None:
        try:
            hot.write_many(_copies(rows))
        except Exception as error:
            if evictions.may_arrive(error):
                evictions.note(rows, are_arriving=True)
                evictions.finish_in_background()
            raise

    return attempt(Tier.HOT, "write", write, default=FAILED) is not FAILED


def _take_back(keys: Collection[str]) -> None:
    """The rows were not held to the end: somebody may have removed them before the copies came."""
    with reporting(Tier.DURABLE, "note an eviction in"):
        # (on another connection than the one that may just have been lost)
        placement.later(partial(_reporting, lambda: evictions.evict(keys, evictions.note(keys))))


def _takes_copies() -> bool:
    """Whether there is a hot tier, and it is not given a rest."""
    with reporting(Tier.HOT, "find"):
        is_there = hot.backend() is not None and breaker.is_up(Tier.HOT)
        # (no rollback would undo a copy: the next test would find it)
        return is_there and not placement.will_be_undone()
    return False


def _copies(
    rows: dict[str, tuple[bytes, datetime | None]],
) -> dict[str, tuple[bytes, float | None]]:
    """The payloads, and for how many seconds each is fresh."""
    now = timezone.now()
    return {
        key: (payload, None if expires is None else (expires - now).total_seconds())
        for key, (payload, expires) in rows.items()
    }


def _write_patience() -> float:
    """For how many seconds a caller waits for a write."""
    return placement.WRITE_SECONDS if breaker.is_up(Tier.DURABLE) else RESTING_SECONDS


def _reporting(work: Callable[[], object]) -> None:
    with failing_safe(Tier.DURABLE, "write"):
        work()


def _save(draft: Draft, since: int | None) -> str | None:
    """Store an entry in both tiers; why not, where it must not be stored."""
    older = _OlderCopy(draft.key)
    refusal = gate.past_deadlocks(partial(_write_patiently, draft, since, older.remove))
    if older.is_gone() and refusal is None:
        _promote_later(draft.key)
    local.drop([draft.key])
    return refusal


def _promote_later(key: str) -> None:
    """The caller, who has the answer, need not wait for its copy."""
    work = partial(_promote, [key])
    if not placement.may_put_off():
        work()
        return
    with reporting(Tier.DURABLE, "hold rows of"):
        placement.later(work, writing=True)


@dataclass(slots=True)
class _OlderCopy:
    """The hot copy of the answer that is replaced, which may be of other tags and of another age.

    It goes while the row is held, so that nobody makes it again: an invalidation finds the row of
    the new answer, and would not know that the old one is still served. Where it cannot go then, it
    is written down.
    """

    key: str
    noted: int | None = None

    def remove(self) -> None:
        # (A cache in the database would take part in the transaction, and could spoil it.)
        may_go = breaker.is_up(Tier.HOT) and not hot.is_in_database()
        is_gone = may_go and evictions.remove_copies([self.key])
        self.noted = None if is_gone else evictions.note([self.key])

    def is_gone(self) -> bool:
        """Whether it is, now that the row is committed; else somebody is at it."""
        if self.noted is None:
            return True
        if breaker.is_up(Tier.HOT):
            return evictions.evict([self.key], self.noted)
        evictions.finish_in_background()
        return False


def _write_patiently(
    draft: Draft, since: int | None, replaced: Callable[[], object] | None
) -> str | None:
    """`durable.write`, again and again where another one is the writer: it was paid for."""
    for _ in range(ATTEMPTS):
        try:
            return durable.write(draft, since, replaced=replaced)
        except OperationalError as error:
            if not gate.is_busy(error):
                raise
    return durable.write(draft, since, replaced=replaced)


_gathering: Final = Gathering(_read_wanted, placement.later, KEYS_PER_QUERY)
os.register_at_fork(after_in_child=_gathering.start_anew)
