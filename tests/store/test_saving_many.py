"""Many entries stored at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import llmcache
from llmcache import store
from llmcache.background import database, transactions
from llmcache.outcomes import Tier
from llmcache.reasons import ReasonCode
from llmcache.store import saving
from llmcache.store.rows import tier as durable
from tests.support.backends import Backend, unreachable
from tests.support.entries import body_of, draft, in_deadlocks, tier_of

KEYS = [f"{number:064x}" for number in range(5)]

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=["sync", "async"])
def save_many(request: pytest.FixtureRequest) -> Any:
    if request.param == "sync":
        return store.save_many
    return lambda *arguments: asyncio.run(store.asave_many(*arguments))


def stored() -> list[bytes | None]:
    return [body_of(store.lookup(key)) for key in KEYS]


def test_all_are_there_and_the_older_ones_are_not(backend: Backend, save_many: Any) -> None:
    store.save(draft(KEYS[0], b"old", tags=frozenset({"old"})))
    store.lookup(KEYS[0])
    database.finish()
    drafts = [draft(key, key[-1:].encode(), tags=frozenset({"new"})) for key in KEYS]
    assert save_many(drafts, store.generation()) == [None] * 5
    assert stored() == [b"0", b"1", b"2", b"3", b"4"]
    database.finish()
    if backend.cache:
        assert {tier_of(store.lookup(key)) for key in KEYS} == {Tier.HOT}
    llmcache.invalidate(tags=["old"])
    assert stored()[0] == b"0"
    llmcache.invalidate(tags=["new"])
    assert stored() == [None] * 5


def test_some_at_a_time_are_one_transaction(monkeypatch: Any, save_many: Any) -> None:
    monkeypatch.setattr(saving, "ROWS_AT_ONCE", 2)
    sizes: list[int] = []
    save_each = saving._save_each

    def counted(some: Any, generation: int | None) -> Any:
        sizes.append(len(some))
        return save_each(some, generation)

    monkeypatch.setattr(saving, "_save_each", counted)
    assert save_many([draft(key) for key in KEYS], None) == [None] * 5
    assert sizes == [2, 2, 1]
    assert stored() == [b"answer"] * 5


def test_what_is_too_large_is_told_at_its_place(settings: Any, save_many: Any) -> None:
    settings.LLMCACHE = {"MAX_ENTRY_BYTES": 1000}
    drafts = [draft(KEYS[0], b"x" * 2000), draft(KEYS[1])]
    refusals = save_many(drafts, None)
    assert [each and each.code for each in refusals] == [ReasonCode.TOO_LARGE, None]
    assert stored()[:2] == [None, b"answer"]


def test_what_was_invalidated_meanwhile_is_told(backend: Backend, save_many: Any) -> None:
    generation = store.generation()
    drafts = [draft(KEYS[0], tags=frozenset({"gone"})), draft(KEYS[1])]
    llmcache.invalidate(tags=["gone"])
    refusals = save_many(drafts, generation)
    assert [each and each.code for each in refusals] == [ReasonCode.INVALIDATED, None]


def test_a_deadlock_is_survived(monkeypatch: Any, backend: Backend, save_many: Any) -> None:
    monkeypatch.setattr(durable, "write", in_deadlocks(1, durable.write))
    assert save_many([draft(key) for key in KEYS], None) == [None] * 5
    assert stored() == [b"answer"] * 5


def test_no_trouble_is_raised(save_many: Any) -> None:
    with unreachable(transactions.database_alias()):
        refusals = save_many([draft(key) for key in KEYS], None)
    assert [each.code for each in refusals] == [ReasonCode.TIER_FAILED] * 5
