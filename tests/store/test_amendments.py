"""Pins, times and tags of entries that stay, on each database."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

import llmcache
from llmcache import store
from llmcache.exceptions import CorruptEntry
from llmcache.models import PendingEviction
from llmcache.outcomes import Tier
from llmcache.removal.expire import expire_entries
from llmcache.store import amendments
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.support.backends import Backend, backend_parameters, places
from tests.support.entries import KEY, draft

HOUR = 3600.0


def the_row() -> Any:
    return durable.entries().get(key=KEY)


def tiers_of(key: str = KEY) -> list[Tier]:
    """Which tiers serve it, the first time and the second."""
    looked_up = [store.lookup(key) for _ in range(2)]
    return [found.tier for found in looked_up if isinstance(found, Found)]


def all_tiers(backend: Backend) -> list[Tier]:
    return [Tier.DURABLE, Tier.HOT if backend.cache else Tier.DURABLE]


@places
def test_a_pinned_entry_never_expires(backend: Backend) -> None:
    store.save(draft(ttl=0.3, stale_until=time.time() + 0.4))
    assert amendments.set_time(the_row().pk, None, pinned=True) == set()
    time.sleep(0.5)
    assert expire_entries() == 0
    # From the row, whose copy was removed, and then from the copy of the pinned one.
    assert tiers_of() == all_tiers(backend)
    found = store.lookup(KEY)
    assert isinstance(found, Found)
    assert (found.body, found.expires) == (b"answer", None)
    row = the_row()
    assert (row.pinned, row.expires_at, row.stale_until) == (True, None, None)


@places
def test_nor_does_what_replaces_it(backend: Backend) -> None:
    store.save(draft())
    amendments.set_time(the_row().pk, None, pinned=True)
    assert store.save(draft(body=b"new", ttl=0.3), late_answers.generation()) is None
    time.sleep(0.4)
    assert expire_entries() == 0
    found = store.lookup(KEY)
    assert isinstance(found, Found)
    assert found.body == b"new"
    assert the_row().pinned
    assert the_row().size == len(bytes(the_row().payload))


@places
def test_a_pinned_entry_is_invalidated(backend: Backend) -> None:
    store.save(draft())
    amendments.set_time(the_row().pk, None, pinned=True)
    tiers_of()
    assert llmcache.invalidate(keys=[KEY]).entries == 1
    assert store.lookup(KEY) == Missing()
    store.save(draft(ttl=0), late_answers.generation())
    assert not the_row().pinned


@places
def test_an_ended_entry_is_not_served(backend: Backend) -> None:
    store.save(draft())
    tiers_of()
    assert amendments.set_time(the_row().pk, 0.0) == set()
    assert store.lookup(KEY) == Missing()
    assert isinstance(store.lookup(KEY, stale=True), Found)
    assert expire_entries() == 1


@places
def test_an_extended_entry_lives_longer(backend: Backend) -> None:
    now = time.time()
    store.save(draft(ttl=0.3, stale_until=now + 0.3 + HOUR))
    amendments.set_time(the_row().pk, 2 * HOUR)
    time.sleep(0.4)
    assert tiers_of() == all_tiers(backend)
    row = the_row()
    assert abs(row.expires_at - timezone.now() - timedelta(hours=2)) < timedelta(seconds=5)
    assert abs(row.stale_until - row.expires_at - timedelta(hours=1)) < timedelta(seconds=1)
    assert not row.pinned


@pytest.mark.django_db
def test_the_stale_window_of_one_that_never_expired_is_that_of_the_settings(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "STALE_IF_ERROR": 600, "STALE_WHILE_REVALIDATE": 60}
    store.save(draft(ttl=None))
    amendments.set_time(the_row().pk, HOUR)
    assert the_row().stale_until - the_row().expires_at == timedelta(minutes=10)


@pytest.mark.django_db
def test_in_a_project_without_time_zones(settings: Any) -> None:
    settings.USE_TZ = False
    with timezone.override("America/New_York"):
        store.save(draft(ttl=0.1))
        amendments.set_time(the_row().pk, HOUR)
        time.sleep(0.2)
        assert isinstance(store.lookup(KEY), Found)
        amendments.set_time(the_row().pk, 0.0)
        assert store.lookup(KEY) == Missing()


@pytest.mark.django_db
def test_an_encrypted_entry(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["a" * 43 + "="]}
    store.save(draft(ttl=0.1))
    amendments.set_time(the_row().pk, None)
    time.sleep(0.2)
    assert isinstance(store.lookup(KEY), Found)


@pytest.mark.django_db
def test_a_damaged_entry_stays_as_it_is() -> None:
    store.save(draft())
    durable.entries().update(payload=b"damaged")
    with pytest.raises(CorruptEntry):
        amendments.set_time(the_row().pk, None, pinned=True)
    assert not the_row().pinned


@pytest.mark.django_db
def test_one_that_is_gone() -> None:
    assert amendments.set_time(1, None) is None
    assert amendments.set_tags(1, ["a"]) is False


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["database"]), indirect=True)
def test_with_the_hot_tier_down_it_is_written_down(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(draft())
    tiers_of()

    def fail(keys: Any) -> None:
        raise ConnectionError("down")

    with monkeypatch.context() as patch:
        patch.setattr(hot, "delete", fail)
        assert amendments.set_time(the_row().pk, 0.0) == {Tier.HOT}
    assert PendingEviction.objects.get().keys == [KEY]


def test_tags(database: str) -> None:
    store.save(draft(tags=frozenset({"a", "b"})))
    assert amendments.set_tags(the_row().pk, {"b", "c d"})
    assert sorted(the_row().tags.values_list("tag", flat=True)) == ["b", "c d"]
    assert llmcache.invalidate(tags=["a"]).entries == 0
    assert llmcache.invalidate(tags=["c d"]).entries == 1
