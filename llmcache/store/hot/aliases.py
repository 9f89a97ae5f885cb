"""The cache that an alias names, and on which thread it is asked.

That of llmcache (see `llmcache.backends`) keeps nobody waiting: it is asked on the caller's thread,
and there is one for all threads. Django's database cache is asked as the rows are. Others are used
as they are: a few threads wait for them, and the caller for a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from llmcache.background import database
from llmcache.background.forks import now_and_in_children
from llmcache.background.pool import NoThread, Workers, carry_out
from llmcache.conf import settings
from llmcache.store.hot import epochs

if TYPE_CHECKING:
    from llmcache.backends import RedisCache

T = TypeVar("T")

# Copies on these would outlive an invalidation in another process, or never be there.
PER_PROCESS: Final = (LocMemCache, DummyCache)
# Other libraries wait for as long as they are told, or for ever. So many threads wait for them, and
# a caller for so long: who reads a row and copies it is not held up for `READ_SECONDS` by that.
OTHERS_THREADS: Final = 4
OTHERS_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Alias:
    """What is known of one; `own`: the backend of llmcache, where it is that."""

    name: str
    own: RedisCache | None
    is_per_process: bool
    is_database: bool

    @property
    def cache(self) -> BaseCache:
        """What to ask, on this thread."""
        found: BaseCache = self.own or caches[self.name]
        return found

    def run(self, work: Callable[[BaseCache], T]) -> T:
        """What `work` does with a cache that is not our own, on a thread that may wait for it."""
        if self.is_database:
            # (it may not be asked in the caller's transaction either)
            return database.run(lambda: work(self.cache))
        future = self.submit(work)
        try:
            return future.result(OTHERS_SECONDS)
        finally:
            future.cancel()

    def submit(self, work: Callable[[BaseCache], T]) -> Future[T]:
        """Have that done by a thread that nobody else needs."""
        try:
            return _others.submit(lambda: work(self.cache))
        except NoThread:
            future: Future[T] = Future()
            carry_out(future, lambda: work(self.cache))
            return future


def known() -> Alias | None:
    """That of the hot tier, where there is one that all processes share."""
    name = settings.cache
    if name is None:
        return None
    alias = _aliases.get(name) or _learn(name)
    return None if alias.is_per_process else alias


def is_own(cache: BaseCache) -> bool:
    """Whether it is the backend of llmcache (which is there with the extra `redis` only)."""
    return hasattr(cache, "guarded_by")


def prepare() -> None:
    """Import the backend of the hot tier: a fork while another thread does would leave none.

    Raises nothing: what is wrong with the settings is told by the checks, and by each use.
    """
    with suppress(Exception):
        import_string(django_settings.CACHES[settings.cache or ""]["BACKEND"])


def _learn(name: str) -> Alias:
    with _lock:
        if name in _aliases:  # (by another thread)
            return _aliases[name]
        cache: Any = caches[name]
        own: Any = caches.create_connection(name) if is_own(cache) else None
        if own is not None:
            own.guarded_by(epochs)
        is_per_process, is_database = (isinstance(cache, of) for of in (PER_PROCESS, DatabaseCache))
        _aliases[name] = Alias(name, own, is_per_process, is_database)
        return _aliases[name]


def _settings_changed(*, setting: str, **_: Any) -> None:
    """A test has overridden what the aliases name."""
    if setting == "CACHES":
        with _lock:
            for alias in _aliases.values():
                if alias.own is not None:
                    alias.own.disconnect()
            _aliases.clear()


def _start_anew() -> None:
    """At the start, and in a forked child: no connection is used on both sides of a fork."""
    global _aliases, _lock
    _aliases, _lock = {}, threading.Lock()


_aliases: dict[str, Alias]
_lock: threading.Lock
_others: Final = Workers("hot tier", OTHERS_THREADS)
now_and_in_children(_start_anew)
setting_changed.connect(_settings_changed)
