"""The hot tier: sealed copies of entries on a Django cache alias. They may vanish any time.

What a copy is called begins with the epoch (see `epochs`).

Whatever asks the tier raises `CircuitOpen` while its circuit is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from operator import methodcaller
from secrets import token_hex
from typing import Any, Final, ParamSpec, TypeVar

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.db import connections, router

from llmcache.background import database
from llmcache.breakers import State, Use, breakers, must_be_up
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.resilience import recovery
from llmcache.store.hot import aliases, epochs
from llmcache.store.hot.epochs import Epoch

P = ParamSpec("P")
T = TypeVar("T")

# What is removed from these does not come back: they have no snapshots, and no replicas take over.
FORGETFUL: Final = (DatabaseCache, FileBasedCache)

PROBE_SECONDS: Final = 10.0


class WrongReply(Exception):
    """The hot tier did not give back what had just been put there."""


def backend() -> BaseCache | None:
    """The cache that holds the hot copies; None when none is configured, or it is per process."""
    known = aliases.known()
    return None if known is None else known.cache


def read(key: str) -> bytes | None:
    """The sealed copy under `key`, or None."""
    known = aliases.known()
    if known is None:
        return None
    now = epochs.current or epoch()
    name = now.copies + key
    if known.own is not None:
        data = _counted(Use.READ, known.own.get, name)
    else:
        data = _asked(Use.READ, lambda cache: cache.get(name))
    # (a connection that was opened for it may have found another server)
    return data if isinstance(data, bytes) and epochs.current is now else None


def ask(key: str) -> Awaitable[bytes | None] | None:
    """`read` on the running event loop; None where only a thread can do it."""
    known, now = aliases.known(), epochs.current
    if known is None or now is None or known.is_database:
        return None
    name = now.copies + key
    if known.own is None:
        future = asyncio.wrap_future(known.submit(lambda cache: cache.get(name)))
        return _awaited(asyncio.wait_for(future, aliases.OTHERS_SECONDS))
    reply = known.own.ask_on_loop(name)
    return None if reply is None else _awaited(reply)


async def _awaited(reply: Awaitable[Any]) -> bytes | None:
    its = breakers[Tier.HOT, Use.READ]
    mark = its.mark
    data = await reply
    if its.in_a_row:
        its.succeeded(mark)
    return data if isinstance(data, bytes) else None


def epoch() -> Epoch:
    """The epoch of the copies. Raises what the tier raises, what the database raises."""
    if epochs.current is not None:
        return epochs.current
    known = aliases.known()
    if known is not None and known.own is not None:
        known.own.connect()  # (so that the epoch lists its servers)
    return epochs.ensure()


def read_many(keys: Collection[str]) -> dict[str, bytes]:
    """The sealed copies that are there, in one round trip."""
    if aliases.known() is None or not keys:
        return {}
    now = epoch()
    names = {now.copies + key: key for key in keys}
    found = values(names)
    return {names[name]: data for name, data in found.items() if epochs.current is now}


def write_many(copies: Mapping[str, tuple[bytes, float | None]], now: Epoch | None = None) -> None:
    """Keep for each key its sealed copy, for as many seconds as it is fresh, in the epoch `now`.

    One round trip for all that stay equally long, as most do: for ``HOT_TTL``. Backends take whole
    seconds. (The envelope knows it better.)
    """
    if now is None:
        if aliases.known() is None:
            return
        now = epoch()
    by_timeout: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for key, (data, fresh_for) in copies.items():
        seconds = settings.hot_ttl if fresh_for is None else min(settings.hot_ttl, fresh_for)
        by_timeout[math.ceil(seconds)][now.copies + key] = data
    for timeout, named in by_timeout.items():
        refused = _asked(Use.WRITE, partial(_set_many, named, timeout, time.monotonic()))
        if refused:  # what is still there of these is of older answers
            drop(refused)


def _set_many(
    named: dict[str, bytes], timeout: int, began: float, cache: BaseCache
) -> list[str] | None:
    refused = cache.set_many(named, timeout)
    if not aliases.is_own(cache) and time.monotonic() - began > aliases.OTHERS_SECONDS:
        cache.delete_many(list(named))  # (nobody waits any more: these may have been invalidated)
    return refused


def delete(keys: Collection[str], living: Collection[str] | None = None) -> None:
    """Remove the copies under `keys`, in the epochs of the names `living`: all that somebody reads.

    None: those that the database knows of.
    """
    if aliases.known() is None or not keys:
        return
    names = epochs.living() if living is None else living
    drop([epochs.copy_name(name, key) for name in names or [epoch().name] for key in keys])


def remover_of_all() -> Callable[[], object] | None:
    """What removes all copies of all epochs; None where the backend cannot tell which those are."""
    cache = backend()
    if cache is None:
        return lambda: None
    start = cache.make_key(epochs.COPIES)
    if not start.endswith(epochs.COPIES):  # a function of the project's made something else of it
        return None
    if isinstance(cache, DatabaseCache):
        remove = partial(database.run_removal, partial(_delete_rows, cache, start))
    elif hasattr(cache, "remove_under"):
        remove = partial(cache.remove_under, epochs.COPIES)
    else:
        return None
    return partial(_counted, Use.WRITE, remove)


def _delete_rows(cache: Any, start: str) -> None:
    connection = connections[router.db_for_write(cache.cache_model_class)]
    table, key = map(connection.ops.quote_name, (cache._table, "cache_key"))  # noqa: SLF001
    with connection.cursor() as cursor:
        of_ours = f"SUBSTR({key}, 1, {len(start)}) = %s"  # (what is left of it means itself)
        cursor.execute(f"DELETE FROM {table} WHERE {of_ours}", [start])  # noqa: S608 - no input


def add(name: str, token: bytes, seconds: float) -> bool:
    """Keep `token` under `name` for `seconds`, unless something is there; whether it was kept."""
    return bool(_asked(Use.WRITE, methodcaller("add", name, token, math.ceil(seconds))))


def put(name: str, value: bytes, seconds: float) -> None:
    """Keep `value` under `name` for `seconds`."""
    _asked(Use.WRITE, methodcaller("set", name, value, math.ceil(seconds)))


def values(names: Collection[str]) -> dict[str, bytes]:
    """What is there under `names`, in one round trip."""
    found = _asked(Use.READ, methodcaller("get_many", list(names))) if names else None
    return {name: value for name, value in (found or {}).items() if isinstance(value, bytes)}


def touch(name: str, seconds: float) -> bool:
    """Keep what is under `name` for `seconds` from now; whether something is there."""
    return bool(_asked(Use.WRITE, methodcaller("touch", name, math.ceil(seconds))))


def drop(names: Collection[str]) -> None:
    """Remove what is under `names`."""
    if names:
        _asked(Use.WRITE, methodcaller("delete_many", list(names)))


def probe() -> None:
    """Put something there, read it and remove it. Raises what the tier raises, or `WrongReply`."""
    name, value = f"llmcache:probe:{token_hex(8)}", token_hex(8).encode()
    put(name, value, PROBE_SECONDS)
    if backend() is not None and values([name]) != {name: value}:
        raise WrongReply("it did not return what had just been put there")
    drop([name])


def may_bring_back() -> bool:
    """Whether a server may come back with what was removed, and nobody would notice."""
    known = aliases.known()
    if known is None or known.own is not None:
        return bool(known and epochs.hidden)
    cache = known.cache
    if isinstance(cache, BaseMemcachedCache):
        # (another one may be asked in the place of one that fails, and is back later)
        return len(list(cache.client_servers)) > 1
    return not isinstance(cache, FORGETFUL)


def patience() -> float:
    """So many seconds the tier may take for one question."""
    with suppress(Exception):  # (what is wrong with the settings is told when it is asked)
        known = aliases.known()
        if known is not None and not known.is_database:
            return aliases.OTHERS_SECONDS if known.own is None else known.own.patience
    return database.READ_SECONDS


def is_shared() -> bool:
    """Whether all processes see one hot tier that is quick: not Django's database cache."""
    known = aliases.known()
    return known is not None and not known.is_database


def is_in_database() -> bool:
    """Whether the copies are rows of Django's database cache."""
    known = aliases.known()
    return known is not None and known.is_database


def _asked(use: Use, work: Callable[[BaseCache], T]) -> T | None:
    """What `work` does with the cache; None where there is none."""
    known = aliases.known()
    if known is None:
        return None
    return _counted(use, known.run, work) if known.own is None else _counted(use, work, known.own)


def _counted(use: Use, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, which tells the breaker that the tier is well."""
    its = breakers[Tier.HOT, use]
    if its.state is not State.CLOSED:
        must_be_up(Tier.HOT, use)
    mark = its.mark
    result = work(*args, **kwargs)
    if its.in_a_row:
        its.succeeded(mark)
    return result


recovery.tried_by(Tier.HOT, Use.READ, partial(values, ["llmcache:probe"]))
recovery.tried_by(Tier.HOT, Use.WRITE, probe)
