"""The local tier: copies in this process, bounded, and gone when what they are of is removed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

import llmcache
from llmcache import store
from llmcache.outcomes import Tier
from llmcache.store import local, lookups
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client
from tests.support.entries import KEY, OTHER_KEY, body_of, draft, tier_of
from tests.support.forks import in_a_fork

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _local(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "database", "LOCAL_TTL": 60}
    hot.delete([KEY, OTHER_KEY])


def held() -> set[str]:
    return set(local._copies)


def test_it_is_off_by_default(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None}
    store.save(draft())
    assert [tier_of(store.lookup(KEY)) for _ in range(2)] == [Tier.DURABLE] * 2
    assert held() == set()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_second_lookup_asks_no_other_tier(is_async: bool) -> None:
    def look_up() -> Found | Missing:
        return asyncio.run(store.alookup(KEY)) if is_async else store.lookup(KEY)

    store.save(draft())
    assert tier_of(look_up()) == Tier.HOT
    durable.entries()._raw_delete(durable.entries().db)
    hot.delete([KEY])
    found = look_up()
    assert (tier_of(found), body_of(found)) == (Tier.LOCAL, b"answer")
    assert store.lookup(OTHER_KEY) == Missing()


def test_many_are_looked_up_in_it_too() -> None:
    store.save(draft())
    store.save(draft(OTHER_KEY))
    store.lookup(KEY)
    for tiers in ([Tier.LOCAL, Tier.HOT], [Tier.LOCAL, Tier.LOCAL]):
        assert [tier_of(each) for each in store.lookup_many([KEY, OTHER_KEY]).values()] == tiers


def test_hits_from_it_are_counted_and_told(model: StandIn) -> None:
    client = make_client(model)
    with llmcache.capture() as calls:
        answers = [client.create(**CALL) for _ in range(3)]
    assert [call.tier for call in calls] == [None, "hot", "local"]
    assert llmcache.explain(client, **CALL).tier == "local"
    assert answers[0] == answers[2]


def test_no_two_callers_share_an_answer(model: StandIn) -> None:
    client = make_client(model)
    first = [client.create(**CALL) for _ in range(3)][-1]
    first.title = "changed"
    first._raw_response.choices.clear()
    again = client.create(**CALL)
    assert again.title != "changed"
    assert again._raw_response.choices
    assert again is not first


def test_a_copy_lives_for_so_long(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "database", "LOCAL_TTL": 0.2}
    store.save(draft())
    assert [tier_of(store.lookup(KEY)) for _ in range(2)] == [Tier.HOT, Tier.LOCAL]
    time.sleep(0.25)
    assert tier_of(store.lookup(KEY)) == Tier.HOT


def test_the_time_counts_from_before_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is invalidated elsewhere while it is read would live longer than `LOCAL_TTL`."""
    store.save(draft())
    peek, now = store.peek, time.monotonic()

    def slow_peek(key: str, *, stale: bool = False) -> Found | Missing:
        monkeypatch.setattr(time, "monotonic", lambda: now + 50)
        return peek(key, stale=stale)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(lookups, "peek", slow_peek)
    store.lookup(KEY)
    [(_, until)] = local._copies.values()
    assert until == now + 60


def test_an_expired_copy_is_not_served() -> None:
    store.save(draft(ttl=0.3))
    assert [tier_of(store.lookup(KEY)) for _ in range(2)] == [Tier.HOT, Tier.LOCAL]
    time.sleep(0.35)
    assert store.lookup(KEY) == Missing()
    assert held() == set()


def test_what_is_stale_is_not_kept(settings: Any) -> None:
    now = time.time()
    store.save(draft(ttl=-1, stale_until=now + 60))
    assert tier_of(store.lookup(KEY, stale=True)) == Tier.DURABLE
    assert held() == set()


def test_those_not_used_for_longest_go_first(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "database", "LOCAL_TTL": 60, "LOCAL_ENTRIES": 2}
    keys = [f"{number:064x}" for number in range(3)]
    for key in keys:
        store.save(draft(key))
    for number in (0, 1, 0, 2):
        store.lookup(keys[number])
    assert held() == {keys[0], keys[2]}


INVALIDATIONS: dict[str, dict[str, Any]] = {
    "key": {"keys": [KEY]},
    "tag": {"tags": ["doc"]},
    "namespace": {"namespace": "tests"},
    "model": {"model": "gpt"},
    "response model": {"response_model": "tests.Ticket"},
    "age": {"before": timedelta(0)},
    "everything": {"everything": True},
}
FACTS: dict[str, Any] = {
    "tags": frozenset({"doc"}),
    "model": "gpt",
    "response_model": "tests.Ticket",
}


@pytest.mark.parametrize("criteria", INVALIDATIONS.values(), ids=INVALIDATIONS)
@pytest.mark.parametrize("row_is_there", [True, False], ids=["", "removed elsewhere"])
def test_what_is_invalidated_here_is_gone(criteria: dict[str, Any], row_is_there: bool) -> None:
    store.save(draft(**FACTS))
    store.lookup(KEY)
    if not row_is_there:
        durable.delete(list(durable.entries().values_list("pk", flat=True)))
        hot.delete([KEY])
    now = timezone.now()
    result = llmcache.invalidate(**criteria)
    assert store.lookup(KEY) == Missing()
    assert result.pending == (Tier.LOCAL,)
    assert result.pending_until is not None
    assert now + timedelta(seconds=60) <= result.pending_until <= now + timedelta(seconds=90)


def test_other_keys_stay() -> None:
    for key in (KEY, OTHER_KEY):
        store.save(draft(key))
        store.lookup(key)
    llmcache.invalidate(keys=[KEY])
    assert held() == {OTHER_KEY}


def test_what_was_being_read_meanwhile_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that has read the copy, and is about to keep it, when it is invalidated."""
    store.save(draft())
    has_read, go_on = threading.Event(), threading.Event()
    put = local.put

    def late_put(*arguments: Any) -> None:
        has_read.set()
        assert go_on.wait(15)
        put(*arguments)

    monkeypatch.setattr(local, "put", late_put)
    with ThreadPoolExecutor(1) as threads:
        lookup = threads.submit(store.lookup, KEY)
        assert has_read.wait(15)
        llmcache.invalidate(keys=[KEY])
        go_on.set()
        assert body_of(lookup.result()) == b"answer"
    assert held() == set()
    assert store.lookup(KEY) == Missing()


def test_what_replaces_it_is_served() -> None:
    store.save(draft(body=b"old"))
    store.lookup(KEY)
    store.save(draft(body=b"new"))
    assert [body_of(store.lookup(KEY)) for _ in range(2)] == [b"new", b"new"]


def test_in_a_transaction_on_sqlite_it_goes_at_once_and_with_the_commit() -> None:
    store.save(draft())
    store.lookup(KEY)
    with transaction.atomic():
        llmcache.invalidate(keys=[KEY])
        assert held() == set()
        store.lookup(KEY)  # the row is there until the commit
    assert held() == set()
    assert store.lookup(KEY) == Missing()


def test_other_settings_are_another_store(settings: Any) -> None:
    store.save(draft())
    store.lookup(KEY)
    settings.LLMCACHE = {"CACHE": None, "LOCAL_TTL": 60}
    assert held() == set()


def test_a_wrong_setting_is_a_tier_less(settings: Any) -> None:
    store.save(draft())
    settings.LLMCACHE = {"CACHE": None, "LOCAL_TTL": "soon"}
    assert [tier_of(store.lookup(KEY)) for _ in range(2)] == [Tier.DURABLE] * 2
    settings.LLMCACHE = {"CACHE": None, "LOCAL_TTL": 60, "LOCAL_ENTRIES": -1}
    assert [tier_of(store.lookup(KEY)) for _ in range(2)] == [Tier.DURABLE, Tier.LOCAL]


def test_a_forked_child_begins_with_none() -> None:
    store.save(draft())
    store.lookup(KEY)

    def look_and_drop() -> list[int]:
        local.drop([KEY])
        return [len(local._copies)]

    with local._lock:
        assert in_a_fork(look_and_drop) == [0]
    assert held() == {KEY}


def test_the_command_does_not_fail_for_copies_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.save(draft())
    call_command("llmcache_invalidate", "--everything", "--yes")
    assert "1 entry" in capsys.readouterr().out


def test_many_threads_use_it_at_once(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "LOCAL_TTL": 60, "LOCAL_ENTRIES": 3}
    keys = [f"{number:064x}" for number in range(6)]
    found = {key: Found(key.encode(), Tier.HOT, None) for key in keys}

    def use(seed: int) -> int:
        wrong = 0
        for step in range(2_000):
            key = keys[(step * (seed + 1)) % len(keys)]
            snapshot = local.snapshot()
            assert snapshot is not None
            copy = local.get(key)
            wrong += copy is not None and copy.body != key.encode()
            local.put(key, found[key], snapshot)
            if step % 50 == 0:
                local.drop([key])
        return wrong

    with ThreadPoolExecutor(6) as threads:
        errors: Callable[..., Any] = threads.map
        assert sum(errors(use, range(6))) == 0
    assert len(held()) <= 3
