"""The lookup of many keys at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmcache import store
from llmcache.outcomes import Tier
from llmcache.reasons import ReasonCode
from llmcache.store import lookups
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import tier as durable
from tests.support.backends import (
    ALL_DATABASES,
    ALL_HOT_TIERS,
    Backend,
    backend_parameters,
    statements,
)
from tests.support.entries import draft

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# Looking many keys up


def keys(number: int) -> list[str]:
    return [f"{n:064x}" for n in range(number)]


def test_many_are_found(backend: Backend) -> None:
    one, two, three = keys(3)
    store.save(draft(one, b"1"))
    store.save(draft(two, b"2", ttl=None))
    hot.delete([one])
    found = store.lookup_many([one, two, three])
    first = Tier.HOT if backend.cache else Tier.DURABLE
    assert list(found) == [one, two, three]
    assert body_and_tier(found[one]) == (b"1", Tier.DURABLE)
    assert body_and_tier(found[two]) == (b"2", first)
    assert found[three] == Missing()
    # They came back into the hot tier.
    again = store.lookup_many([one, two])
    assert [body_and_tier(each) for each in again.values()] == [(b"1", first), (b"2", first)]


def body_and_tier(found: Found | Missing) -> tuple[bytes, Tier] | None:
    return (found.body, found.tier) if isinstance(found, Found) else None


@pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, ALL_HOT_TIERS[:2]), indirect=True
)
def test_what_may_not_be_served_is_not_found(backend: Backend) -> None:
    good, expired, stale, damaged, moved = keys(5)
    store.save(draft(good))
    for key in (expired, stale):
        store.save(draft(key, ttl=-1))
    store.save(draft(damaged))
    durable.entries().filter(key=damaged).update(payload=b"nonsense")
    hot.delete([good, damaged])
    found = store.lookup_many([good, expired, stale, damaged, moved], stale=[stale])
    assert [key for key, each in found.items() if isinstance(each, Found)] == [good, stale]
    assert isinstance(each := found[stale], Found)
    assert not each.fresh
    assert hot.read_many([expired, stale, damaged]) == {}


async def test_the_twin_for_coroutines(transactional_db: None) -> None:
    one, two = keys(2)
    await store.asave(draft(one))
    found = await store.alookup_many([one, two])
    assert [type(each) for each in found.values()] == [Found, Missing]


def test_many_more_than_one_query_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "KEYS_PER_QUERY", 4)
    for key in keys(10):
        store.save(draft(key))
    with statements() as seen:
        found = store.lookup_many(keys(10))
    assert len([sql for sql in seen if sql.startswith("SELECT")]) == 3
    assert all(isinstance(each, Found) for each in found.values())


def test_a_failing_tier_is_a_miss_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Iterator[Any]:
        raise OSError("gone")

    monkeypatch.setattr(durable, "read", fail)
    [found] = store.lookup_many(keys(1)).values()
    assert found == Missing(
        (ReasonCode.TIER_FAILED(tier="durable", operation="read", error="OSError"),)
    )


def test_a_missing_alias_of_the_hot_tier_keeps_nobody_from_the_rows(settings: Any) -> None:
    [key] = keys(1)
    store.save(draft(key))
    settings.LLMCACHE = {"CACHE": "missing"}
    assert isinstance(store.lookup_many([key])[key], Found)
