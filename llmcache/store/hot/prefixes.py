"""Removing all that a cache holds under a prefix, where its backend can tell what that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.db import connections, router

from llmcache.store.hot import backends

# So many names are gone through by one question to Redis, which answers nobody else meanwhile; and
# so many are removed by one statement.
NAMES_AT_ONCE: Final = 500
SPECIAL: Final = re.compile(r"([*?\[\]^\\-])")


def remover(cache: BaseCache, prefix: str) -> Callable[[], object] | None:
    """What removes all that is under keys that begin with `prefix`; None where nothing can.

    What is put there meanwhile may stay. It raises what the backend raises.
    """
    start = str(backends.key_maker(cache)(prefix))
    if not start.endswith(prefix):  # a function of the project's own made something else of it
        return None
    if isinstance(cache, DatabaseCache):
        return lambda: _remove_rows(cache, start)
    if backends.is_checked(cache):
        return lambda: _remove_from_servers(cache, start)
    return None


def _remove_from_servers(cache: BaseCache, start: str) -> None:
    pattern = SPECIAL.sub(r"\\\1", start) + "*"
    # What moves to another node of a Cluster meanwhile is found there the second time.
    for _ in range(2 if backends.is_cluster(cache) else 1):
        for pool in backends.pools_of(cache, anew=True):
            _remove_from(pool, pattern)


def _remove_from(pool: Any, pattern: str) -> None:
    from redis import Redis

    server: Any = Redis(connection_pool=pool)
    cursor = None
    while cursor != 0:
        cursor, names = server.scan(cursor or 0, match=pattern, count=NAMES_AT_ONCE)
        # (a node of a Cluster takes one at a time)
        removing = server.pipeline(transaction=False)
        for name in names:
            removing.unlink(name)
        removing.execute()


def _remove_rows(cache: Any, start: str) -> None:
    connection = connections[router.db_for_write(cache.cache_model_class)]
    table = connection.ops.quote_name(cache._table)  # noqa: SLF001
    column = connection.ops.quote_name("cache_key")
    with connection.cursor() as cursor:
        # (databases escape in ways of their own: what is found too much is sorted out here)
        alike = re.sub(r"[\\%]", "_", start) + "%"
        cursor.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE %s", [alike])  # noqa: S608
        names = [name for (name,) in cursor.fetchall() if name.startswith(start)]
        for some in _in_parts(names):
            marks = ", ".join(["%s"] * len(some))
            cursor.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", some)  # noqa: S608


def _in_parts(names: list[str]) -> Iterable[list[str]]:
    return (names[begin : begin + NAMES_AT_ONCE] for begin in range(0, len(names), NAMES_AT_ONCE))
