"""Looking entries up through the tiers: one, or many at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from llmcache import breakers, signals
from llmcache.background import database, transactions
from llmcache.background.batching import Gathering
from llmcache.background.forks import now_and_in_children
from llmcache.breakers import Use
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.discretion import without_content
from llmcache.exceptions import CorruptEntry
from llmcache.outcomes import Tier
from llmcache.reasons import Reason
from llmcache.resilience.failsafe import aattempt, attempt, failing_safe, logger, reporting
from llmcache.store import local, promotion
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import late_answers, waiting
from llmcache.store.rows import tier as durable

# So many keys are looked up by one query: databases bound its parameters.
KEYS_PER_QUERY: Final = 500
#: A key, and whether an entry that has expired will do.
Wanted = tuple[str, bool]


def lookup(key: str, *, stale: bool = False) -> Found | Missing:
    """The entry under `key`, from the first tier that has it.

    `stale`: an entry that has expired, and has not been removed yet, will do.
    """
    snapshot = local.snapshot()
    found: Found | Missing | None = local.get(key) if snapshot else None
    if found is not None:
        return found
    found = peek(key, stale=stale)
    if snapshot and isinstance(found, Found) and found.fresh:
        _keep(key, found, snapshot)
    return found


def peek(key: str, *, stale: bool = False) -> Found | Missing:
    """`lookup` past the copies in this process, for who wants to know what is stored."""
    troubles: list[Reason] = []
    found = _waiting(key, stale) if key in waiting.drafts else None
    found = found or _lookup_hot(key, troubles)
    return found or _told(_lookup_durable(key, stale, troubles), troubles)


def peek_before_asking(key: str) -> tuple[Found | Missing, int | None]:
    """`peek` for who is about to ask the model, and the generation (see `late_answers`).

    The rows are asked for both in one piece of work.
    """
    found = _waiting(key, stale=False) if key in waiting.drafts else None
    found = found or _lookup_hot(key, [])
    if found is not None:
        return found, None
    work = partial(database.run, partial(_read_before_asking, key), patience=_patience())
    return attempt(Tier.DURABLE, "read", work) or (Missing(), None)


async def alookup(key: str, *, stale: bool = False) -> Found | Missing:
    """`lookup` for a coroutine: Redis is asked on the event loop, the rest on another thread."""
    snapshot = local.snapshot()
    found: Found | Missing | None = local.get(key) if snapshot else None
    if found is not None:
        return found
    found = await _alook_up(key, stale)
    if snapshot and isinstance(found, Found) and found.fresh:
        _keep(key, found, snapshot)
    return found


async def _alook_up(key: str, stale: bool) -> Found | Missing:
    """`peek` for a coroutine."""
    troubles: list[Reason] = []
    found: Found | Missing | None = None
    if key in waiting.drafts:
        with failing_safe(Tier.DURABLE, "read", troubles):
            found = await database.arun(partial(_waiting, key, stale))
    reply = _ask_hot(key) if found is None else None
    if reply is not None:
        data = await aattempt(Tier.HOT, "read", reply, troubles)
        found = found_in(key, data, Tier.HOT, stale=False)
    if found is None:

        def rest() -> Found | Missing | None:
            found = _lookup_hot(key, troubles) if reply is None else None
            return found or _lookup_durable(key, stale, troubles)

        with failing_safe(Tier.DURABLE, "read", troubles):
            found = await database.arun(rest, patience=_patience())
    return _told(found, troubles)


def lookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """The entries under `keys`, in one round trip a tier (one for each `KEYS_PER_QUERY` rows).

    `stale`: those of the keys for which an entry that has expired will do.
    """
    troubles: list[Reason] = []
    snapshot = local.snapshot()
    found: dict[str, Found | None] = {key: local.get(key) for key in keys} if snapshot else {}
    found |= {key: _waiting(key, key in stale) for key in waiting.drafts.keys() & keys}
    rest = [key for key in keys if not found.get(key)]
    copies = attempt(Tier.HOT, "read", partial(hot.read_many, rest), troubles) or {}
    read = {key: found_in(key, data, Tier.HOT, stale=False) for key, data in copies.items()}
    rest = [key for key in rest if not read.get(key)]
    for start in range(0, len(rest), KEYS_PER_QUERY):
        some = rest[start : start + KEYS_PER_QUERY]
        work = partial(database.run, partial(_read, some, stale), patience=_patience(len(some)))
        of_rows, _ = attempt(Tier.DURABLE, "read", work, troubles) or ({}, None)
        read |= of_rows
    for key, each in read.items():
        if snapshot and each and each.fresh:
            _keep(key, each, snapshot)
    found |= read
    missing = Missing(tuple(troubles))
    return {key: found.get(key) or missing for key in keys}


async def alookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """`lookup_many` for a coroutine: the tiers are asked on another thread."""
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "read", troubles):
        # (no thread is needed to look nothing up)
        work = partial(lookup_many, keys, stale=stale)
        return await database.arun(work, patience=_patience(len(keys))) if keys else {}
    return dict.fromkeys(keys, Missing((troubles[0],)))


def _keep(key: str, found: Found, snapshot: local.Snapshot) -> None:
    with reporting(Tier.LOCAL, "write"):
        if not transactions.will_be_undone():
            local.put(key, found, snapshot)


def refuse(key: str, tier: Tier, error: Exception) -> None:
    """Report an entry that must not be served: a miss, and never an exception."""
    why = without_content(error)
    logger.warning("llmcache: the %s tier holds a bad entry under %s: %s", tier, key, why)
    signals.send(signals.entry_refused, tier, key=key, tier=tier, error=error)


def _ask_hot(key: str) -> Awaitable[bytes | None] | None:
    """The hot copy, asked for on the event loop; None where that cannot be."""
    with suppress(Exception):  # what is wrong is told by the thread that asks in its place
        return hot.ask(key) if breakers.is_up(Tier.HOT, Use.READ) else None
    return None


def _lookup_hot(key: str, troubles: list[Reason]) -> Found | None:
    data = attempt(Tier.HOT, "read", partial(hot.read, key), troubles)
    return found_in(key, data, Tier.HOT, stale=False)


def _lookup_durable(key: str, stale: bool, troubles: list[Reason]) -> Found | Missing | None:
    return attempt(Tier.DURABLE, "read", partial(_read_one, (key, stale)), troubles)


def _told(found: Found | Missing | None, troubles: list[Reason]) -> Found | Missing:
    """What the rows said; None: nothing, because of the last of the troubles."""
    if isinstance(found, Missing) and troubles:
        return replace(found, reasons=tuple(troubles))
    return found or Missing(tuple(troubles))


def _read_one(wanted: Wanted) -> Found | Missing | None:
    if database.runs_here():
        return database.run(partial(_read_wanted, [wanted]))[wanted]
    return _gathering.look_up(wanted).result(_patience())


def _read_before_asking(key: str) -> tuple[Found | Missing, int | None]:
    found, generation = _read([key], stale=())
    return found.get(key, Missing()), generation


def _read_wanted(several: Collection[Wanted]) -> dict[Wanted, Found | Missing]:
    looked = time.monotonic()
    read, generation = _read({key for key, _ in several}, {key for key, stale in several if stale})
    found: dict[Wanted, Found | Missing] = {
        (key, stale): read[key]
        for key, stale in several
        if key in read and (stale or read[key].fresh)
    }
    if generation is None and len(found) < len(several):
        generation = late_answers.generation()
    return dict.fromkeys(several, Missing((), looked, generation)) | found


def _patience(more: int = 0) -> float:
    """The hot tier is asked before, and given a copy behind. Many rows take a moment longer."""
    return max(database.READ_SECONDS, hot.patience()) * (1 + more / KEYS_PER_QUERY)


def _read(keys: Collection[str], stale: Collection[str]) -> tuple[dict[str, Found], int | None]:
    """What the rows have under `keys`, of which what is fresh gets a hot copy.

    And where it is one key, the generation (see `late_answers`).
    """
    rows, generation = database.past_a_cut(partial(_rows, keys, expired_too=bool(stale)))
    read = {key: found_in(key, rows[key], Tier.DURABLE, stale=key in stale) for key in rows}
    found = {key: each for key, each in read.items() if each is not None}
    promotion.promote([key for key, each in found.items() if each.fresh])
    return found, generation


def _rows(keys: Collection[str], *, expired_too: bool) -> tuple[dict[str, bytes], int | None]:
    if len(keys) > 1:
        return durable.read_many(keys, expired_too=expired_too), None
    [key] = keys
    data, generation = durable.read(key, expired_too=expired_too)
    return {} if data is None else {key: data}, generation


def found_in(key: str, data: bytes | None, tier: Tier, *, stale: bool) -> Found | None:
    if data is None:
        return None
    try:
        envelope = unseal(ANSWER, key, data)
    except CorruptEntry as error:
        refuse(key, tier, error)
        return None
    expires = envelope.expires
    stale_for = 0.0 if expires is None else max(0.0, time.time() - expires)
    if stale_for and not stale:
        return None
    return Found(envelope.body, tier, expires, stale_for, envelope.created)


def _waiting(key: str, stale: bool) -> Found | None:
    """The answer that waits to be written under `key`."""
    with failing_safe(Tier.DURABLE, "read"):
        draft = waiting.get(key)
        if draft is not None:
            return found_in(key, draft.payload, Tier.LOCAL, stale=stale)
    return None


_gathering: Final = Gathering(_read_wanted, database.later, KEYS_PER_QUERY)
now_and_in_children(_gathering.start_anew)
