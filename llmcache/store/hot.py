"""The hot tier: sealed copies of entries on a Django cache alias. They may vanish any time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from llmcache.conf import settings
from llmcache.store import placement

T = TypeVar("T")

# Copies on these would outlive an invalidation in another process, or never be there.
PER_PROCESS = (LocMemCache, DummyCache)


def backend() -> BaseCache | None:
    """The cache that holds the hot copies; None when none is configured, or it is per process."""
    alias = settings.cache
    if alias is None:
        return None
    cache = caches[alias]
    return None if isinstance(cache, PER_PROCESS) else cache


def read(key: str) -> bytes | None:
    """The sealed copy under `key`, or None."""
    cache = backend()
    if cache is None:
        return None
    data = _placed(cache, lambda: cache.get(_hot_key(key)))
    return data if isinstance(data, bytes) else None


def write(key: str, data: bytes, fresh_for: float | None) -> None:
    """Keep a sealed copy for at most `fresh_for` seconds, and at most ``HOT_TTL``."""
    cache = backend()
    if cache is None:
        return
    _placed(cache, lambda: cache.set(_hot_key(key), data, _timeout(fresh_for)))


def read_many(keys: Collection[str]) -> dict[str, bytes]:
    """The sealed copies that are there, in one round trip."""
    cache = backend()
    if cache is None or not keys:
        return {}
    names = {_hot_key(key): key for key in keys}
    copies = _placed(cache, lambda: cache.get_many(names))
    return {names[name]: data for name, data in copies.items() if isinstance(data, bytes)}


def write_many(copies: Mapping[str, tuple[bytes, float | None]]) -> None:
    """`write` for each key: its sealed copy, and for how many seconds it is fresh.

    One round trip for all that stay equally long, as most do: for ``HOT_TTL``.
    """
    cache = backend()
    if cache is None:
        return
    by_timeout: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for key, (data, fresh_for) in copies.items():
        by_timeout[_timeout(fresh_for)][_hot_key(key)] = data
    for timeout, named in by_timeout.items():
        _placed(cache, partial(cache.set_many, named, timeout))


def delete(keys: Collection[str]) -> None:
    """Remove the copies under `keys`."""
    cache = backend()
    if cache is not None and keys:
        _placed(cache, lambda: cache.delete_many([_hot_key(key) for key in keys]))


def is_locked() -> bool:
    """Whether writing a copy would wait for the caller's own transaction (SQLite)."""
    return isinstance(backend(), DatabaseCache) and placement.caller_is_the_writer()


def _timeout(fresh_for: float | None) -> int:
    seconds = settings.hot_ttl if fresh_for is None else min(settings.hot_ttl, fresh_for)
    # Backends count whole seconds; the envelope knows the fraction.
    return math.ceil(seconds)


def _hot_key(key: str) -> str:
    return f"llmcache:{key}"


def _placed(cache: BaseCache, work: Callable[[], T]) -> T:
    # Django's database cache asks a database as well, and may not do so in the caller's
    # transaction either.
    return placement.run(work) if isinstance(cache, DatabaseCache) else work()
