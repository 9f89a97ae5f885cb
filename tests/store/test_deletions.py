"""Rows that are removed or changed behind the cache's back, and the copies that they had."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections, transaction

import llmcache
from llmcache import breakers, store
from llmcache.background import database
from llmcache.models import CacheEntry, Epoch, PendingEviction
from llmcache.outcomes import Tier
from llmcache.store import evictions
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from tests.support.backends import (
    OWN,
    Backend,
    backend_parameters,
    use,
    use_backend,
)
from tests.support.entries import draft
from tests.support.returns import KEYS, fill, tier
from tests.support.servers import RedisServer, require

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

HOT_TIERS: list[str | None] = ["database", "redis"]


@pytest.fixture(params=backend_parameters(["default", "postgres", "mariadb"], HOT_TIERS))
def copied(request: pytest.FixtureRequest, settings: Any) -> Backend:
    """Entries with copies, in each combination of rows and hot tier."""
    chosen = use_backend(request, settings, request.param)
    fill()
    return chosen


def rows(backend: Backend) -> Any:
    return CacheEntry.objects.using(backend.database)


def notes(backend: Backend) -> int:
    return PendingEviction.objects.using(backend.database).count()


def served() -> list[Tier]:
    return [each for each in map(tier, KEYS) if each is not None]


def by_sql(backend: Backend) -> None:
    with connections[backend.database].cursor() as cursor:
        for table in ("entrytag", "entrypart", "cacheentry"):
            cursor.execute(f"DELETE FROM llmcache_{table}")


def fill_again() -> None:
    llmcache.invalidate(everything=True)
    fill()


def hashed(key: str, prefix: str, version: int) -> str:
    return hashlib.sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


def test_a_query_set_takes_the_copies_along(copied: Backend) -> None:
    rows(copied).filter(key__in=KEYS[:2]).delete()
    assert [tier(key) for key in KEYS] == [None, None, Tier.HOT]
    assert notes(copied) == 0


def test_so_does_an_entry(copied: Backend) -> None:
    rows(copied).get(key=KEYS[0]).delete()
    assert [tier(key) for key in KEYS] == [None, Tier.HOT, Tier.HOT]
    assert notes(copied) == 0


def test_a_deletion_that_is_undone_takes_nothing_along(copied: Backend) -> None:
    with transaction.atomic(using=copied.database):
        rows(copied).all().delete()
        transaction.set_rollback(True, using=copied.database)
    assert served() == [Tier.HOT] * 3
    assert notes(copied) == 0


def test_until_it_is_committed_it_is_noted(copied: Backend) -> None:
    with transaction.atomic(using=copied.database):
        rows(copied).all().delete()
        assert notes(copied) == 1
    assert notes(copied) == 0
    assert served() == []


def test_an_entry_that_is_saved_has_no_old_copy(copied: Backend) -> None:
    entry = rows(copied).get(key=KEYS[0])
    entry.payload = draft(KEYS[0], b"another").payload
    entry.save()
    found = store.lookup(KEYS[0])
    assert isinstance(found, Found)
    assert found.body == b"another"


def test_after_sql_keys_are_reached(copied: Backend) -> None:
    by_sql(copied)
    assert served() == [Tier.HOT] * 3
    result = llmcache.invalidate(keys=KEYS[:2])
    assert (result.entries, result.pending) == (0, ())
    assert [tier(key) for key in KEYS] == [None, None, Tier.HOT]


def test_after_sql_everything_is_reached(copied: Backend) -> None:
    by_sql(copied)
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending) == (0, ())
    assert served() == []


def test_everything_leaves_the_rest_of_the_cache_alone(copied: Backend) -> None:
    cache = caches[str(copied.cache)]
    cache.set("llmcache", b"theirs", 60)
    hot.put("llmcache:lease:theirs", b"token", 60)
    assert llmcache.invalidate(everything=True).pending == ()
    assert cache.get("llmcache") == b"theirs"
    assert hot.values(["llmcache:lease:theirs"])


@pytest.mark.parametrize(
    ("prefix", "alike"), [("a*", "ab"), ("a?[x]", "abx"), ("50%_", "50%%"), ("b\\c", "bc")]
)
def test_everything_is_what_begins_with_the_prefix_to_the_letter(
    copied: Backend, settings: Any, prefix: str, alike: str
) -> None:
    alias = str(copied.cache)

    def call_it(name: str) -> None:
        ours = settings.CACHES[alias] | {"KEY_PREFIX": name}
        settings.CACHES = {**settings.CACHES, alias: ours}

    call_it(alike)
    caches[alias].set("llmcache:copy:theirs", b"theirs", 60)
    call_it(prefix)
    fill_again()
    by_sql(copied)
    assert served() == [Tier.HOT] * 3
    assert llmcache.invalidate(everything=True).pending == ()
    assert served() == []
    call_it(alike)
    assert caches[alias].get("llmcache:copy:theirs") == b"theirs"


def test_names_that_hide_how_they_begin(copied: Backend, settings: Any) -> None:
    alias = str(copied.cache)
    hashed = {"KEY_FUNCTION": f"{__name__}.hashed"}
    settings.CACHES = {**settings.CACHES, alias: settings.CACHES[alias] | hashed}
    fill_again()
    rows(copied).filter(key=KEYS[0])._raw_delete(copied.database)
    assert llmcache.invalidate(everything=True).pending == ("hot",)
    assert served() == [Tier.HOT]
    assert llmcache.invalidate(keys=KEYS).pending == ()
    assert served() == []


def test_flush_takes_the_copies_along(copied: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "may_put_off", lambda: True)
    old = epochs.ensure()
    call_command("flush", interactive=False, verbosity=0, database=copied.database)
    cache = hot.backend()
    assert cache is not None
    assert cache.get_many([old.copies + key for key in KEYS]) == {}
    assert served() == []
    assert epochs.ensure().name != old.name


def test_after_a_test_the_next_begins_a_new_epoch(copied: Backend) -> None:
    old = epochs.ensure()
    call_command("flush", interactive=False, verbosity=0, database=copied.database)
    assert served() == []
    fill()
    assert Epoch.objects.using(copied.database).get().name == epochs.ensure().name != old.name


@pytest.mark.redis
@pytest.mark.parametrize("in_tests", [True, False])
def test_flush_without_redis_is_quick(
    settings: Any, monkeypatch: pytest.MonkeyPatch, in_tests: bool
) -> None:
    require(RedisServer)
    monkeypatch.setattr(database, "may_put_off", lambda: not in_tests)
    with RedisServer() as server:
        use(settings, OWN, server.url)
        fill()
        server.kill()
        started = time.monotonic()
        call_command("flush", interactive=False, verbosity=0)
        assert time.monotonic() - started < 1.5
    left = list(PendingEviction.objects.values_list("keys", flat=True))
    assert left == ([] if in_tests else [["*"]])


@pytest.mark.redis
@pytest.mark.parametrize(
    "remove",
    [
        lambda: CacheEntry.objects.all().delete(),
        lambda: llmcache.invalidate(keys=KEYS),
        lambda: llmcache.invalidate(everything=True),
    ],
    ids=["ORM", "keys", "everything"],
)
def test_what_cannot_go_now_goes_later(settings: Any, remove: Callable[[], Any]) -> None:
    require(RedisServer)
    with RedisServer() as server:
        use(settings, OWN, server.url)
        fill()
        CacheEntry.objects.filter(key=KEYS[0])._raw_delete("default")
        server.pause()
        remove()
        server.resume()
        breakers.start_anew()
        left = {
            key for keys in PendingEviction.objects.values_list("keys", flat=True) for key in keys
        }
        assert left
        deadline = time.monotonic() + 5
        while not evictions.finish_all_evictions() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert served() == ([] if KEYS[0] in left or "*" in left else [Tier.HOT])


@pytest.mark.django_db(transaction=False)
def test_in_a_test_that_is_rolled_back_there_are_no_copies(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "database"}
    for key in KEYS:
        assert store.save(draft(key), late_answers.generation()) is None
    assert served() == [Tier.DURABLE] * 3
    CacheEntry.objects.all().delete()
    assert llmcache.invalidate(everything=True).pending == ()
    assert not Epoch.objects.exists()


def test_of_files_all_are_gone_when_their_time_is_over(settings: Any, tmp_path: Any) -> None:
    files = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": tmp_path}
    settings.CACHES = {**settings.CACHES, "files": files}
    settings.LLMCACHE = {"CACHE": "files"}
    fill()
    CacheEntry.objects.filter(key=KEYS[0])._raw_delete("default")
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending) == (2, ("hot",))
    assert result.pending_until is not None
    assert served() == [Tier.HOT]
    assert llmcache.invalidate(keys=KEYS).pending == ()
    assert served() == []
