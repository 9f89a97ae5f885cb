"""The hot tier: sealed copies of entries on a Django cache alias. They may vanish any time.

What a copy is called begins with the epoch (see `epochs`).

Whatever asks the tier raises `CircuitOpen` while its circuit is.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache

from llmcache.background import database, transactions
from llmcache.background.batching import Gathering
from llmcache.background.forks import now_and_in_children
from llmcache.breakers import State, Use, breakers, must_be_up
from llmcache.conf import of_project, settings
from llmcache.outcomes import Tier
from llmcache.resilience import recovery
from llmcache.store.hot import backends, epochs, prefixes
from llmcache.store.hot.backends import POOL_SECONDS
from llmcache.store.hot.direct import direct_to
from llmcache.store.hot.epochs import Epoch

if TYPE_CHECKING:
    from llmcache.store.hot.getting import Direct

P = ParamSpec("P")
T = TypeVar("T")

# Copies on these would outlive an invalidation in another process, or never be there.
PER_PROCESS: Final = (LocMemCache, DummyCache)

# What is removed from these does not come back: they have no snapshots, and no replicas take over.
FORGETFUL: Final = (DatabaseCache, FileBasedCache, BaseMemcachedCache)

PROBE_SECONDS: Final = 10.0

# So many threads read at the same moment, each for itself. Those beyond are read for together.
READERS: Final = 12
READ_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class _Backend:
    """What is known of an alias; `twin` None: the alias itself is used.

    `direct`: a shorter way to read from the twin, where there is one.
    """

    params: object
    twin: BaseCache | None
    direct: Direct | None
    is_per_process: bool
    is_database: bool


class WrongReply(Exception):
    """The hot tier did not give back what had just been put there."""


def backend() -> BaseCache | None:
    """The cache that holds the hot copies; None when none is configured, or it is per process.

    Where there is one, it is a private twin of what the alias names (see `backends`).
    """
    alias = settings.cache
    return None if alias is None else _cache(alias, _known(alias))


def read(key: str) -> bytes | None:
    """The sealed copy under `key`, or None."""
    alias = settings.cache
    if alias is None:
        return None
    known = _known(alias)
    try:
        turn = _readers.pop()
    except IndexError:
        must_be_up(Tier.HOT, Use.READ)
        return _gathering.look_up(key).result(POOL_SECONDS)
    try:
        if known.direct is not None:
            return _counted(Use.READ, known.direct.get, key)
        return _read_through(_cache(alias, known), key)
    finally:
        _readers.append(turn)


def ask(key: str) -> Awaitable[bytes | None] | None:
    """`read` on the running event loop; None where only a thread can do it."""
    alias = settings.cache
    direct = None if alias is None else _known(alias).direct
    reply = None if direct is None else direct.ask_on_loop(key)
    return None if reply is None else _awaited(reply)


async def _awaited(reply: Awaitable[T]) -> T:
    its = breakers[Tier.HOT, Use.READ]
    mark = its.mark
    result = await reply
    its.succeeded(mark)
    return result


def epoch() -> Epoch:
    """The epoch of the copies. Raises what the tier raises, what the database raises."""
    if epochs.current is None:
        backends.connect(backend())
    return epochs.ensure()


def write(key: str, data: bytes, fresh_for: float | None) -> None:
    """Keep a sealed copy for at most `fresh_for` seconds, and at most ``HOT_TTL``."""
    write_many({key: (data, fresh_for)})


def read_many(keys: Collection[str]) -> dict[str, bytes]:
    """The sealed copies that are there, in one round trip."""
    if backend() is None or not keys:
        return {}
    now = epoch()
    names = {now.name_of(key): key for key in keys}
    found = values(names)
    return {names[name]: data for name, data in found.items() if epochs.current is now}


def write_many(copies: Mapping[str, tuple[bytes, float | None]], now: Epoch | None = None) -> None:
    """Keep for each key its sealed copy, for as many seconds as it is fresh, in the epoch `now`.

    One round trip for all that stay equally long, as most do: for ``HOT_TTL``.
    """
    cache = backend()
    if cache is None:
        return
    now = now or epoch()
    by_timeout: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for key, (data, fresh_for) in copies.items():
        by_timeout[_whole(_bounded(fresh_for))][now.name_of(key)] = data
    for timeout, named in by_timeout.items():
        refused = _placed(cache, Use.WRITE, partial(cache.set_many, named, timeout))
        # What is still there of these is of older answers.
        drop(refused or ())


def delete(keys: Collection[str], living: Collection[str] | None = None) -> None:
    """Remove the copies under `keys`, in the epochs of the names `living`: all that somebody reads.

    None: those that the database knows of.
    """
    if backend() is None or not keys:
        return
    if living is None:
        living = epochs.living()
    drop([epochs.copy_name(name, key) for name in living or [epoch().name] for key in keys])


def can_delete_all() -> bool:
    """Whether the backend can tell which copies there are."""
    cache = backend()
    return cache is None or prefixes.remover(cache, epochs.COPIES) is not None


def delete_all() -> None:
    """Remove all copies of all epochs, where the backend can tell which those are."""
    cache = backend()
    remove = None if cache is None else prefixes.remover(cache, epochs.COPIES)
    if remove is not None:
        _counted(
            Use.WRITE, remove if not is_in_database() else partial(database.run_removal, remove)
        )


def add(name: str, token: bytes, seconds: float) -> bool:
    """Keep `token` under `name` for `seconds`, unless something is there; whether it was kept."""
    cache = backend()
    if cache is None:
        return False
    return bool(_placed(cache, Use.WRITE, lambda: cache.add(name, token, _whole(seconds))))


def put(name: str, value: bytes, seconds: float) -> None:
    """Keep `value` under `name` for `seconds`."""
    cache = backend()
    if cache is not None:
        _placed(cache, Use.WRITE, lambda: cache.set(name, value, _whole(seconds)))


def values(names: Collection[str]) -> dict[str, bytes]:
    """What is there under `names`, in one round trip."""
    cache = backend()
    if cache is None or not names:
        return {}
    found = _placed(cache, Use.READ, lambda: cache.get_many(list(names)))
    return {name: value for name, value in found.items() if isinstance(value, bytes)}


def touch(name: str, seconds: float) -> bool:
    """Keep what is under `name` for `seconds` from now; whether something is there."""
    cache = backend()
    if cache is None:
        return False
    return bool(_placed(cache, Use.WRITE, lambda: cache.touch(name, _whole(seconds))))


def drop(names: Collection[str]) -> None:
    """Remove what is under `names`."""
    cache = backend()
    if cache is not None and names:
        _placed(cache, Use.WRITE, lambda: cache.delete_many(list(names)))


def probe_reading() -> None:
    """Look for something. Raises what the tier raises."""
    values(["llmcache:probe"])


def probe() -> None:
    """Put something there, read it and remove it. Raises what the tier raises, or `WrongReply`."""
    name, value = f"llmcache:probe:{token_hex(8)}", token_hex(8).encode()
    put(name, value, PROBE_SECONDS)
    if backend() is not None and values([name]) != {name: value}:
        raise WrongReply("it did not return what had just been put there")
    drop([name])


def may_bring_back() -> bool:
    """Whether a server may come back with what was removed, and nobody would notice."""
    cache = backend()
    if cache is None or isinstance(cache, FORGETFUL):
        return False
    return epochs.hides_servers() or not backends.is_checked(cache)


def is_shared() -> bool:
    """Whether all processes see one hot tier that is quick: not Django's database cache."""
    alias = settings.cache
    if alias is None:
        return False
    known = _known(alias)
    return not (known.is_per_process or known.is_database)


def is_in_database() -> bool:
    """Whether the copies are rows of Django's database cache."""
    alias = settings.cache
    return alias is not None and _known(alias).is_database


def is_locked() -> bool:
    """Whether writing a copy would wait for the caller's own transaction (SQLite)."""
    return is_in_database() and transactions.caller_is_the_writer()


def _read_through(cache: BaseCache | None, key: str) -> bytes | None:
    if cache is None:
        return None
    now = epoch()
    data = _placed(cache, Use.READ, lambda: cache.get(now.name_of(key)))
    # (a connection that was opened for it may have found another server)
    return data if isinstance(data, bytes) and epochs.current is now else None


def _cache(alias: str, known: _Backend) -> BaseCache | None:
    if known.twin is not None:
        return known.twin
    return None if known.is_per_process else caches[alias]


def _known(alias: str) -> _Backend:
    known = _backends.get(alias)
    # Settings that were overridden are other objects.
    if known is not None and known.params is of_project("CACHES").get(alias):
        return known
    with _lock:
        known = _backends.get(alias)
        if known is None or known.params is not django_settings.CACHES.get(alias):
            _forget(alias)
            known = _backends[alias] = _look_at(alias)
        return known


def _look_at(alias: str) -> _Backend:
    cache = caches[alias]
    params: dict[str, Any] = django_settings.CACHES[alias]
    twin = backends.twin_of(params)
    return _Backend(
        params,
        twin,
        direct_to(twin) if twin is not None else None,
        isinstance(cache, PER_PROCESS),
        isinstance(cache, DatabaseCache),
    )


def _forget(alias: str) -> None:
    old = _backends.pop(alias, None)
    if old is not None and old.direct is not None:
        old.direct.close()
    if old is not None and old.twin is not None:
        backends.close(old.twin)


def _bounded(fresh_for: float | None) -> float:
    return settings.hot_ttl if fresh_for is None else min(settings.hot_ttl, fresh_for)


def _whole(seconds: float) -> int:
    # Not all backends take a fraction. (The envelope knows it.)
    return math.ceil(seconds)


def _placed(cache: BaseCache, use: Use, work: Callable[[], T]) -> T:
    # Django's database cache asks a database as well, and may not do so in the caller's
    # transaction either.
    if isinstance(cache, DatabaseCache):
        return _counted(use, lambda: database.run(work))
    return _counted(use, work)


def _counted(use: Use, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, which tells the breaker that the tier is well."""
    its = breakers[Tier.HOT, use]
    if its.state is not State.CLOSED:
        must_be_up(Tier.HOT, use)
    mark = its.mark
    result = work(*args, **kwargs)
    its.succeeded(mark)
    return result


def _start_anew() -> None:
    """At the start, and in a forked child: no connection is used on both sides of a fork."""
    global _backends, _lock, _readers
    _backends, _lock, _readers = {}, threading.Lock(), deque(range(READERS))
    _gathering.start_anew()


_backends: dict[str, _Backend]
_lock: threading.Lock
_readers: deque[int]
_gathering: Final = Gathering(read_many, database.run_behind, READ_AT_ONCE)
now_and_in_children(_start_anew)

recovery.tried_by(Tier.HOT, Use.READ, probe_reading)
recovery.tried_by(Tier.HOT, Use.WRITE, probe)
