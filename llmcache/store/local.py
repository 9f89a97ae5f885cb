"""The local tier: copies in this process, for at most ``LOCAL_TTL`` seconds; off by default.

A bounded dictionary in the order of use. Each step on it is one call of C, which no other thread
sees half done, so a hit takes no lock. (cachetools' caches are Python, and need one around them.)
Copies are bytes, and each hit is restored from them: no two callers share an answer.

What this process removes or replaces goes at once. What another process removes may be served here
until its ``LOCAL_TTL`` is over, counted from the moment before it was read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from llmcache.background.forks import lock, now_and_in_children
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.resilience import recovery
from llmcache.store.records import Found

# What is recorded before the other tiers are asked: until when a copy of what they say may live
# (`time.monotonic`), and how often something had been removed by then.
Snapshot = tuple[float, int]


def snapshot() -> Snapshot | None:
    """To be called before the other tiers are asked; None where there is no local tier."""
    seconds = ttl()
    return (time.monotonic() + seconds, _removals) if seconds else None


def ttl() -> float:
    """How many seconds a copy lives at most; 0 where there is no local tier."""
    try:
        return settings.local_ttl
    except ImproperlyConfigured:  # `check` says so, and the other tiers do without
        return 0.0


def get(key: str) -> Found | None:
    """The fresh copy under `key`, if there is one."""
    copy = _copies.get(key)
    if copy is None:
        return None
    found, until = copy
    if time.monotonic() >= until or (found.expires is not None and time.time() >= found.expires):
        _copies.pop(key, None)
        return None
    try:  # noqa: SIM105 - `suppress` takes longer than all the rest
        _copies.move_to_end(key)
    except KeyError:  # another thread has removed it
        pass
    return found


def put(key: str, found: Found, snapshot: Snapshot) -> None:
    """Keep a copy of what was found, unless something was removed since."""
    until, removals = snapshot
    with _lock:
        if removals == _removals:
            _copies[key] = replace(found, tier=Tier.LOCAL), until
            _copies.move_to_end(key)
            while len(_copies) > settings.local_entries:
                _copies.popitem(last=False)


def drop(keys: Iterable[str]) -> None:
    """Remove the copies under `keys`, and let none be made of what is being read now."""
    global _removals
    with _lock:
        _removals += 1
        for key in keys:
            _copies.pop(key, None)


def clear() -> None:
    """Remove all copies, and let none be made of what is being read now."""
    global _removals
    with _lock:
        _removals += 1
        _copies.clear()


_lock: Final = lock()
_copies: Final = OrderedDict[str, tuple[Found, float]]()
_removals = 0
now_and_in_children(_copies.clear)
recovery.with_other_tiers(clear)
