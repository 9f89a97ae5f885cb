"""Law D for hot copies: promotes that race an invalidation, and copies nobody could be sure of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from django.core.cache.backends.db import DatabaseCache
from django.db import connections

import llmcache
from llmcache import breakers, store
from llmcache.background import database as placement
from llmcache.outcomes import Tier
from llmcache.removal import audit
from llmcache.store import batches, evictions, promotion
from llmcache.store.batches import Pace, Window
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters
from tests.support.copies import write_copy
from tests.support.entries import draft
from tests.support.removal import KEYS, fill, notes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# Promotes that race an invalidation


@pytest.mark.parametrize(
    "backend",
    backend_parameters(ALL_DATABASES, ["database", "redis"]),
    indirect=True,
)
def test_a_promote_does_not_bring_an_entry_back(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup has read the row; before it makes the hot copy, the entry is invalidated."""
    fill()
    hot.delete(KEYS)
    promote, has_read, may_go_on = promotion.promote, threading.Event(), threading.Event()

    def wait(keys: Any) -> bool:
        has_read.set()
        may_go_on.wait(10)
        return promote(keys)

    monkeypatch.setattr(promotion, "promote", wait)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(store.lookup, KEYS[0])
        assert has_read.wait(10)
        result = llmcache.invalidate(everything=True)
        may_go_on.set()
        found.result()
    assert (result.entries, result.pending) == (8, ())
    assert hot.read(KEYS[0]) is None
    assert not isinstance(store.lookup(KEYS[0]), Found)


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], ["redis"]), indirect=True
)
def test_an_invalidation_waits_for_a_copy_that_is_being_made(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is being written; its row cannot go before that, nor the copy outlive the row."""
    fill()
    hot.delete(KEYS)
    write_many, writing, may_go_on = hot.write_many, threading.Event(), threading.Event()

    def wait(*copies: Any) -> None:
        writing.set()
        may_go_on.wait(10)
        write_many(*copies)

    monkeypatch.setattr(hot, "write_many", wait)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(store.lookup, KEYS[0])
        assert writing.wait(10)
        invalidated = threads.submit(llmcache.invalidate, keys=[KEYS[0]])
        time.sleep(0.3)
        assert not invalidated.done()
        may_go_on.set()
        assert invalidated.result().pending == ()
    assert hot.read(KEYS[0]) is None


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, ["redis"]), indirect=True)
def test_the_copy_of_what_was_replaced_goes_although_the_row_stays(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new answer takes the row of an old one, and has no copy yet when the row is looked at."""
    fill()
    windows = batches.windows

    def replace_in_between(*arguments: Any) -> Iterator[Window]:
        for window in windows(*arguments):
            assert durable.write(draft(KEYS[0]), late_answers.generation()) is None
            yield window

    monkeypatch.setattr(batches, "windows", replace_in_between)
    old = hot.read(KEYS[0])
    # (not everything: that removes all copies at its end)
    result = llmcache.invalidate(namespace="tests")
    assert (result.entries, result.pending) == (7, ())
    assert old is not None
    assert hot.read(KEYS[0]) is None
    assert isinstance(store.lookup(KEYS[0]), Found)


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, ["redis"]), indirect=True)
def test_an_invalidation_ends_after_the_copies_that_another_is_removing(backend: Backend) -> None:
    """The other one has removed the rows, and not come to their copies."""
    fill()
    newest = audit.newest(audit.start({}, "the other one"))
    for window in batches.windows(lambda rows: rows, newest):
        assert [batch.removed for batch in batches.remove(window.seen, Pace(100))] == [8]
    assert hot.read(KEYS[0]) is not None
    # (not everything: that removes all copies at its end)
    assert llmcache.invalidate(namespace="tests").pending == ()
    assert hot.read_many(KEYS) == {}


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], ["redis"]), indirect=True
)
def test_no_older_copy_stays_when_the_new_one_cannot_be_made(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has the row at the moment: nobody waits for it, and no copy is made."""
    fill()
    assert hot.read(KEYS[0]) is not None
    monkeypatch.setattr(promotion, "promote", lambda keys: False)
    assert store.save(draft(KEYS[0]), late_answers.generation()) is None
    assert hot.read(KEYS[0]) is None


@pytest.mark.parametrize(
    "backend",
    backend_parameters(ALL_DATABASES, ["database", "redis"]),
    indirect=True,
)
def test_an_answer_that_is_replaced_is_not_served_once_the_new_one_is_there(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalidation by what only the old one had (its age, a tag) would not find it any more."""
    fill()
    assert hot.read(KEYS[0]) is not None
    served: list[object] = []
    monkeypatch.setattr(promotion, "promote", lambda keys: served.extend(map(hot.read, keys)))
    assert store.save(draft(KEYS[0]), late_answers.generation()) is None
    assert served == [None]


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, ["redis"]), indirect=True)
def test_it_is_written_down_that_the_old_copy_is_still_there(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    old = hot.read(KEYS[0])
    with monkeypatch.context() as patch:
        patch.setattr(hot, "delete", Mock(side_effect=ConnectionError))
        assert store.save(draft(KEYS[0]), late_answers.generation()) is None
        assert old is not None
        with breakers.trying(Tier.HOT):  # (nobody else is served it)
            assert hot.read(KEYS[0]) == old
        assert notes(backend) == [[KEYS[0]]]
    assert evictions.finish_all_evictions()
    with breakers.trying(Tier.HOT):
        assert (hot.read(KEYS[0]), notes(backend)) == (None, [])


# Copies that nobody could be sure of


on_redis = pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, ["redis"]), indirect=True
)


@on_redis
def test_a_copy_that_others_have_made_while_the_tier_had_a_rest_here(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes missed: the other one stored first, and has its copy."""
    fill()
    with monkeypatch.context() as patch:
        patch.setattr(breakers, "is_up", lambda tier, *uses: tier is not Tier.HOT)
        assert store.save(draft(KEYS[0]), late_answers.generation()) is None
    assert hot.read(KEYS[0]) is not None
    assert llmcache.invalidate(keys=["f" * 64]).pending == ()
    assert hot.read(KEYS[0]) is None


@on_redis
def test_what_is_new_has_no_older_copy(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(breakers, "is_up", lambda tier, *uses: tier is not Tier.HOT)
        assert store.save(draft(KEYS[0]), late_answers.generation()) is None
        assert notes(backend) == []
        assert store.save(draft(KEYS[0]), late_answers.generation()) is None
        assert notes(backend) == [[KEYS[0]]]


@on_redis
def test_a_copy_that_comes_late(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply did not come in time; what was sent comes after the invalidation."""
    monkeypatch.setattr(evictions, "ARRIVAL", timedelta(seconds=3))
    fill()
    [copy] = hot.read_many(KEYS[:1]).values()
    hot.delete(KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(hot, "write_many", Mock(side_effect=redis.TimeoutError))
        assert isinstance(store.lookup(KEYS[0]), Found)
    assert llmcache.invalidate(everything=True).pending == ("hot",)
    write_copy(KEYS[0], copy, 60)
    assert hot.read(KEYS[0]) is not None
    assert llmcache.invalidate(everything=True).pending == ("hot",)
    assert hot.read(KEYS[0]) is None
    time.sleep(3)
    assert llmcache.invalidate(everything=True).pending == ()
    assert notes(backend) == []


@on_redis
def test_a_tier_that_refuses_leaves_no_doubt(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    hot.delete(KEYS)
    refusal = Mock(side_effect=redis.ResponseError("OOM command not allowed"))
    monkeypatch.setattr(hot, "write_many", refusal)
    assert isinstance(store.lookup(KEYS[0]), Found)
    assert refusal.called
    assert notes(backend) == []


@pytest.mark.postgres
@pytest.mark.parametrize("backend", backend_parameters(["postgres"], ["redis"]), indirect=True)
def test_a_copy_is_taken_back_when_its_row_was_not_held_to_the_end(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost while the copy is written, and the entry is invalidated."""
    fill()
    hot.delete(KEYS)
    write_many = hot.write_many

    def lose_the_connection(*copies: Any) -> None:
        with connections["postgres"].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [pid] = cursor.fetchone()
        ended = f"SELECT pg_terminate_backend({pid})"
        with ThreadPoolExecutor(1) as thread:
            thread.submit(in_a_session, ended).result()
            thread.submit(llmcache.invalidate, everything=True).result()
        write_many(*copies)

    # (on a busy machine that takes a while)
    monkeypatch.setattr(placement, "READ_SECONDS", 30)
    monkeypatch.setattr(hot, "write_many", lose_the_connection)
    assert isinstance(store.lookup(KEYS[0]), Found)
    wait_until(lambda: hot.read(KEYS[0]) is None and not notes(backend))


def in_a_session(sql: str) -> None:
    with connections["postgres"].cursor() as cursor:
        cursor.execute(sql)
    connections["postgres"].close()


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, ["database"]), indirect=True)
def test_a_broken_table_of_copies_keeps_no_answer_from_being_stored(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    broken = Mock(side_effect=partial(_fail_in, backend.database))
    monkeypatch.setattr(DatabaseCache, "delete_many", broken)
    new = draft(KEYS[0], body=b"new")
    assert store.save(new, late_answers.generation()) is None
    assert broken.called
    assert durable.read(KEYS[0])[0] == new.payload


def _fail_in(alias: str, *_: object, **__: object) -> None:
    """As a statement on a table that is not there does, also to the transaction around it."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1 FROM no_such_table")
