"""Entries of which a server may come back with copies."""

from __future__ import annotations

from llmcache import store
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from tests.support.entries import draft
from tests.support.waiting import wait_until

KEYS = [f"{number:064x}" for number in range(3)]


def fill() -> None:
    for key in KEYS:
        assert store.save(draft(key), late_answers.generation()) is None
    wait_until(lambda: set(hot.read_many(KEYS)) == set(KEYS))


def tier(key: str = KEYS[0]) -> Tier | None:
    found = store.lookup(key)
    return found.tier if isinstance(found, Found) else None
