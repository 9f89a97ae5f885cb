"""Looking an entry up through the tiers, and storing one in them."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from llmcache import signals
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.conf import settings
from llmcache.exceptions import CorruptEntry
from llmcache.outcomes import Tier
from llmcache.store import durable, hits, hot, placement
from llmcache.store.durable import Draft
from llmcache.store.safety import failing_safe, logger


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that was found, and which tier had it; `expires` in seconds since the epoch."""

    body: bytes
    tier: Tier
    expires: float | None
    fresh: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing that may be served; `reason` tells of trouble, and is empty for a plain miss."""

    reason: str = ""


# Each waits as long as the connection waits for a lock (5 seconds by default).
ATTEMPTS: Final = 12

# So many keys are looked up by one query: databases bound its parameters.
KEYS_PER_QUERY: Final = 500

TOO_LARGE: Final = "the answer is larger than LLMCACHE['MAX_ENTRY_BYTES']"


def lookup(key: str, *, stale: bool = False) -> Found | Missing:
    """The entry under `key`, from the first tier that has it.

    `stale`: an entry that has expired, and has not been removed yet, will do.
    """
    troubles: list[str] = []
    found = _lookup_hot(key, troubles) or _lookup_durable(key, stale, troubles)
    if found is None:
        return Missing("; ".join(troubles))
    hits.count(key)
    return found


async def alookup(key: str, *, stale: bool = False) -> Found | Missing:
    """`lookup` for a coroutine: the tiers are asked on another thread."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "read", troubles):
        return await placement.arun(partial(lookup, key, stale=stale))
    return Missing(troubles[0])


def lookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """The entries under `keys`, in one round trip a tier (one for each `KEYS_PER_QUERY` rows).

    `stale`: those of the keys for which an entry that has expired will do. No hit is counted
    (`count_hit` does that): one entry may serve several calls, or none.
    """
    troubles: list[str] = []
    found = _lookup_many_hot(keys, troubles)
    rest = [key for key in keys if key not in found]
    found |= _lookup_many_durable(rest, frozenset(stale), troubles)
    missing = Missing("; ".join(troubles))
    return {key: found.get(key, missing) for key in keys}


async def alookup_many(
    keys: Collection[str], *, stale: Collection[str] = ()
) -> dict[str, Found | Missing]:
    """`lookup_many` for a coroutine: the tiers are asked on another thread."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "read", troubles):
        # (no thread is needed to look nothing up)
        return await placement.arun(partial(lookup_many, keys, stale=stale)) if keys else {}
    return dict.fromkeys(keys, Missing(troubles[0]))


def count_hit(key: str) -> None:
    """Note that what `lookup_many` found under `key` was served once."""
    hits.count(key)


def copy_of(draft: Draft) -> Found | None:
    """The entry that `draft` makes, as a copy in this process; None when it is fresh no more."""
    with failing_safe(Tier.LOCAL, "read"):
        return _found(draft.key, draft.payload, Tier.LOCAL, stale=False)
    return None


def save(draft: Draft) -> str | None:
    """Store an entry, row first, then hot copy. None: stored, or soon to be; else why not."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        if len(draft.payload) > settings.max_entry_bytes:
            return TOO_LARGE
        if placement.caller_is_the_writer():
            placement.put_off(partial(_save_when_possible, draft))
            return None
        return placement.run(partial(_save_in_both, draft))
    return troubles[0]


async def asave(draft: Draft) -> str | None:
    """`save` for a coroutine: the tiers are written on another thread."""
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        return await placement.arun(partial(save, draft))
    return troubles[0]


def _lookup_hot(key: str, troubles: list[str]) -> Found | None:
    with failing_safe(Tier.HOT, "read", troubles):
        return _found(key, hot.read(key), Tier.HOT, stale=False)
    return None


def _lookup_durable(key: str, stale: bool, troubles: list[str]) -> Found | None:
    with failing_safe(Tier.DURABLE, "read", troubles):
        data = placement.run(partial(durable.read, key, expired_too=stale))
        found = _found(key, data, Tier.DURABLE, stale=stale)
        if data is not None and found is not None and found.fresh:
            _write_hot(key, data, found.expires)
        return found
    return None


def _lookup_many_hot(keys: Collection[str], troubles: list[str]) -> dict[str, Found]:
    with failing_safe(Tier.HOT, "read", troubles):
        copies = hot.read_many(keys)
        found = {key: _found(key, data, Tier.HOT, stale=False) for key, data in copies.items()}
        return {key: each for key, each in found.items() if each is not None}
    return {}


def _lookup_many_durable(
    keys: list[str], stale: frozenset[str], troubles: list[str]
) -> dict[str, Found]:
    found: dict[str, Found] = {}
    with failing_safe(Tier.DURABLE, "read", troubles):
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            rows = placement.run(
                partial(durable.read_many, some, expired_too=not stale.isdisjoint(some))
            )
            fresh: dict[str, tuple[bytes, float | None]] = {}
            for key, data in rows.items():
                if each := _found(key, data, Tier.DURABLE, stale=key in stale):
                    found[key] = each
                    if each.fresh:
                        fresh[key] = data, each.expires
            _write_many_hot(fresh)
    return found


def _write_many_hot(entries: dict[str, tuple[bytes, float | None]]) -> None:
    with failing_safe(Tier.HOT, "write"):
        if not entries or hot.is_locked():
            return
        now = time.time()
        fresh_for = {
            key: (data, None if expires is None else expires - now)
            for key, (data, expires) in entries.items()
            if expires is None or expires > now
        }
        hot.write_many(fresh_for)


def _found(key: str, data: bytes | None, tier: Tier, *, stale: bool) -> Found | None:
    if data is None:
        return None
    try:
        envelope = unseal(ANSWER, key, data)
    except CorruptEntry as error:
        refuse(key, tier, error)
        return None
    fresh = envelope.is_fresh(time.time())
    return Found(envelope.body, tier, envelope.expires, fresh) if fresh or stale else None


def refuse(key: str, tier: Tier, error: Exception) -> None:
    """Report an entry that must not be served: a miss, and never an exception."""
    logger.warning("llmcache: the %s tier holds a bad entry under %s: %s", tier, key, error)
    signals.send(signals.entry_refused, tier, key=key, tier=tier, error=error)


def _save_when_possible(draft: Draft) -> None:
    """Store what was put off, waiting for the lock again and again; it was paid for."""
    for _ in range(ATTEMPTS):
        if _save_in_both(draft) is None:
            return


def _save_in_both(draft: Draft) -> str | None:
    troubles: list[str] = []
    with failing_safe(Tier.DURABLE, "write", troubles):
        durable.write(draft)
        _write_hot(draft.key, draft.payload, draft.expires)
        return None
    return troubles[0]


def _write_hot(key: str, data: bytes, expires: float | None) -> None:
    with failing_safe(Tier.HOT, "write"):
        if hot.is_locked():
            return
        fresh_for = None if expires is None else expires - time.time()
        if fresh_for is None or fresh_for > 0:
            hot.write(key, data, fresh_for)
        else:
            # The copy that may still be there is of an older answer.
            hot.delete([key])
