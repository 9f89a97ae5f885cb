"""Copies in the hot tier that has the alias "hot"."""

from __future__ import annotations

from typing import Any

from llmcache.store.hot import tier as hot
from llmcache.store.hot.getting import Direct

KEYS = [f"{number:064x}" for number in range(40)]


def copy_of(key: str) -> bytes:
    return b"copy of %d" % int(key, 16)


def direct() -> Direct | None:
    return hot._known("hot").direct


def at_hand() -> list[Any]:
    found = direct()
    assert found is not None
    return list(found._at_hand)
