"""Copies in the hot tier that has the alias "hot"."""

from __future__ import annotations

from typing import Any

from llmcache.store.hot import tier as hot

KEYS = [f"{number:064x}" for number in range(40)]


def copy_of(key: str) -> bytes:
    return b"copy of %d" % int(key, 16)


def write_copy(key: str, data: bytes, fresh_for: float | None) -> None:
    hot.write_many({key: (data, fresh_for)})


def pool() -> Any:
    """The connections of the hot tier."""
    cache: Any = hot.backend()
    return cache.pools()[0]


def at_hand() -> list[Any]:
    """Those that nobody uses at the moment."""
    return list(pool()._available_connections)
