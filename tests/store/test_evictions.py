"""Hot copies that are still to be removed: written down, and removed once that is possible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from celery import current_app
from django.core.cache import caches
from django.db import transaction
from django.utils import timezone

import llmcache
from llmcache import breakers, store
from llmcache.models import Invalidation, PendingEviction
from llmcache.removal import engine, expire
from llmcache.store import evictions
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from llmcache.tasks import on_celery
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters, unreachable
from tests.support.copies import write_copy
from tests.support.entries import draft
from tests.support.removal import KEYS, fill, notes, served
from tests.support.servers import RedisServer, require
from tests.support.waiting import wait_until

rows_only = pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, [None]), indirect=True
)

# What an invalidation of everything notes: each key that has a row, and that all are to go.
ALL_NOTED = len(KEYS) + 1

one_database = pytest.mark.parametrize(
    "backend", backend_parameters(["default"], [None]), indirect=True
)


@pytest.fixture
def redis(backend: Backend, settings: Any) -> Iterator[RedisServer]:
    """A Redis of its own as the hot tier, which the test may stop."""
    require(RedisServer)
    with RedisServer() as server:
        fragile = settings.CACHES["redis"] | {"LOCATION": server.url}
        settings.CACHES = settings.CACHES | {"fragile": fragile}
        settings.LLMCACHE = backend.llmcache | {"CACHE": "fragile", "HOT_TTL": 60}
        yield server
        evictions._start_anew()


@pytest.fixture
def _nobody_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this process behind its callers, nor the breaker."""
    monkeypatch.setattr(evictions, "finish_in_background", lambda: None)
    monkeypatch.setattr(breakers, "FIRST_PAUSE", 3600.0)


@rows_only
@pytest.mark.redis
def test_nothing_is_left_when_the_hot_tier_is_there(backend: Backend, redis: RedisServer) -> None:
    fill()
    assert len(served()) == 8
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending, result.pending_until) == (8, (), None)
    assert (notes(backend), served()) == ([], set())


@rows_only
@pytest.mark.redis
@pytest.mark.usefixtures("_nobody_tries_again")
def test_with_the_hot_tier_down_it_is_written_down(
    backend: Backend, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 5)
    fill()
    assert len(served()) == 8
    redis.pause()
    result = llmcache.invalidate(keys=KEYS[:6])
    assert (result.entries, result.pending) == (6, ("hot",))
    assert result.pending_until is not None
    assert timedelta(0) < result.pending_until - timezone.now() <= timedelta(seconds=60)
    assert sorted(chain.from_iterable(notes(backend))) == KEYS[:6]
    [row] = PendingEviction.objects.using(backend.database)[:1]
    assert row.until - row.created_at == timedelta(seconds=60)
    audit = Invalidation.objects.using(backend.database).get()
    assert (audit.entries, audit.pending) == (6, "hot")

    redis.resume()
    breakers.start_anew()
    assert evictions.finish_evictions() == 6
    assert (notes(backend), served()) == ([], {6, 7})


@one_database
@pytest.mark.redis
def test_the_process_that_could_not_do_it_tries_again(backend: Backend, redis: RedisServer) -> None:
    fill()
    assert len(served()) == 8
    redis.pause()
    assert llmcache.invalidate(everything=True).pending == ("hot",)
    time.sleep(1.5)
    redis.resume()
    wait_until(lambda: notes(backend) == [])
    wait_until(lambda: breakers.is_up(llmcache.outcomes.Tier.HOT))
    assert served() == set()


@one_database
@pytest.mark.redis
@pytest.mark.usefixtures("_nobody_tries_again")
def test_the_task_finishes_it(backend: Backend, redis: RedisServer) -> None:
    fill()
    redis.pause()
    llmcache.invalidate(everything=True)
    redis.resume()
    breakers.start_anew()
    assert "llmcache.finish_evictions" in current_app.tasks
    assert on_celery.finish_evictions.apply().get() == ALL_NOTED
    assert on_celery.finish_evictions.apply().get() == 0
    assert (notes(backend), served()) == ([], set())


@one_database
@pytest.mark.redis
@pytest.mark.usefixtures("_nobody_tries_again")
def test_what_is_not_finished_is_left(backend: Backend, redis: RedisServer) -> None:
    fill()
    redis.pause()
    llmcache.invalidate(everything=True)
    assert evictions.finish_evictions() == 0
    assert evictions.finish_all_evictions() is False
    with pytest.raises(evictions.EvictionsLeft):
        evictions._before_copies_are_trusted()
    assert len(notes(backend)) == 2


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], [None]), indirect=True
)
@pytest.mark.redis
def test_hot_copies_are_not_trusted_while_nobody_knows(
    backend: Backend, redis: RedisServer
) -> None:
    """Whether copies are still to go stands in the database."""
    with unreachable(backend.database):
        assert evictions.finish_all_evictions() is False
    assert evictions.finish_all_evictions() is True


@rows_only
@pytest.mark.redis
@pytest.mark.usefixtures("_nobody_tries_again")
def test_by_several_at_once(
    backend: Backend, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evictions, "ARRIVAL", timedelta(0))
    redis.pause()
    fill()
    for key in KEYS:
        llmcache.invalidate(keys=[key])
    redis.resume()
    breakers.start_anew()
    finished: list[bool] = []
    threads = [
        threading.Thread(target=lambda: finished.append(evictions.finish_all_evictions()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finished == [True] * 4
    assert notes(backend) == []


@one_database
@pytest.mark.redis
@pytest.mark.usefixtures("_nobody_tries_again")
def test_an_answer_that_is_stored_in_between_is_served_all_the_same(
    backend: Backend, redis: RedisServer
) -> None:
    fill()
    redis.pause()
    llmcache.invalidate(everything=True)
    redis.resume()
    breakers.start_anew()
    assert store.save(draft(KEYS[0]), late_answers.generation()) is None
    assert evictions.finish_evictions() == ALL_NOTED
    assert served() == {0}


@one_database
def test_there_is_nothing_to_write_down_without_a_hot_tier(backend: Backend, settings: Any) -> None:
    for alias in (None, "default"):
        settings.LLMCACHE = backend.llmcache | {"CACHE": alias}
        fill()
        assert llmcache.invalidate(everything=True).pending == ()
        assert notes(backend) == []
        assert evictions.finish_evictions() == 0


@one_database
@pytest.mark.redis
def test_in_a_transaction_that_is_rolled_back(backend: Backend, redis: RedisServer) -> None:
    """SQLite allows one writer: the invalidation is part of the caller's transaction."""
    fill()
    with transaction.atomic():
        result = llmcache.invalidate(everything=True)
        assert (result.entries, result.pending, result.pending_until) == (8, ("durable",), None)
        transaction.set_rollback(True)
    assert (notes(backend), len(served())) == ([], 8)
    assert not Invalidation.objects.exists()


@one_database
@pytest.mark.redis
def test_in_a_transaction_that_is_committed(backend: Backend, redis: RedisServer) -> None:
    fill()
    with transaction.atomic():
        llmcache.invalidate(everything=True)
        # Others see the rows until the commit, and may copy them.
        for key in KEYS:
            write_copy(key, draft(key).payload, 60)
    assert (notes(backend), served()) == ([], set())
    assert Invalidation.objects.get().entries == 8


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], [None]), indirect=True
)
@pytest.mark.redis
def test_with_the_database_down_the_copies_of_named_keys_go(
    backend: Backend, redis: RedisServer
) -> None:
    """Their rows stay. But while nobody can read these, nothing is served under those keys."""
    fill()
    assert len(served()) == 8
    with unreachable(backend.database):
        result = llmcache.invalidate(keys=KEYS[:2])
        assert (result.entries, result.pending, result.id) == (0, ("durable", "hot"), None)
        assert result.pending_until is None
        assert not isinstance(store.lookup(KEYS[0]), Found)
        assert isinstance(store.lookup(KEYS[2]), Found)


@one_database
def test_notes_about_copies_that_have_expired_are_removed(backend: Backend) -> None:
    now = timezone.now()
    for hours in (-2, 2):
        until = now + timedelta(hours=hours)
        PendingEviction.objects.create(keys=KEYS, created_at=now, until=until)
    expire.expire_entries()
    assert PendingEviction.objects.get().until > now


@one_database
def test_settings_without_the_hot_alias(backend: Backend, settings: Any) -> None:
    settings.LLMCACHE = backend.llmcache | {"CACHE": "nowhere"}
    fill()
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending) == (8, ("hot",))
    assert "nowhere" not in caches.settings
