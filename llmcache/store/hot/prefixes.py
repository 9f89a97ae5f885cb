"""Removing all that a cache holds under a prefix, where its backend can tell what that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.db import connections, router

# So many names are removed by one statement.
NAMES_AT_ONCE: Final = 500


def remover(cache: BaseCache, prefix: str) -> Callable[[], object] | None:
    """What removes all that is under keys that begin with `prefix`; None where nothing can.

    What is put there meanwhile may stay. It raises what the backend raises.
    """
    start = cache.make_key(prefix)
    if not start.endswith(prefix):  # a function of the project's own made something else of it
        return None
    if isinstance(cache, DatabaseCache):
        return lambda: _remove_rows(cache, start)
    by_prefix: Callable[[str], None] | None = getattr(cache, "remove_under", None)
    return partial(by_prefix, prefix) if by_prefix is not None else None


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
