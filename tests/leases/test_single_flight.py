"""Single flight: of many who ask the same, one asks the model."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from django.db import connections

import llmcache
from llmcache import store
from llmcache.background import database as placement
from llmcache.codec.envelope import ANSWER, seal
from llmcache.leases import Ending, Lease, aacquire, acquire, places
from llmcache.store.records import Found
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.asking import ask_in_threads, outcomes
from tests.support.backends import Backend
from tests.support.clients import CALL, make_client
from tests.support.copies import write_copy
from tests.support.entries import KEY, draft
from tests.support.servers import RedisServer, require

pytestmark = pytest.mark.django_db(transaction=True)


async def ask_in_tasks(client: Any, number: int) -> list[str]:
    async def ask() -> str:
        with llmcache.capture() as calls:
            await client.create(**CALL)
        return str(calls[0].outcome)

    return sorted(await asyncio.gather(*(ask() for _ in range(number))))


def test_one_of_many_threads_asks(model: StandIn, backend: Backend) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 20)) == ["hit"] * 19 + ["miss"]
    assert len(model.calls) == 1


def test_one_of_many_coroutines_asks(model: StandIn, database: str) -> None:
    model.latency = 0.5
    client = make_client(model, async_client=True)
    assert asyncio.run(ask_in_tasks(client, 50)) == ["hit"] * 49 + ["miss"]
    assert len(model.calls) == 1


def test_threads_and_coroutines_wait_for_each_other(model: StandIn) -> None:
    model.latency = 1.0
    futures = ask_in_threads(make_client(model), 10)
    tasks = asyncio.run(ask_in_tasks(make_client(model, async_client=True), 10))
    assert sorted(outcomes(futures) + tasks) == ["hit"] * 19 + ["miss"]
    assert len(model.calls) == 1


def test_whoever_waited_is_told_why(model: StandIn) -> None:
    model.latency = 0.5
    calls = [future.result(30) for future in ask_in_threads(make_client(model), 2)]
    assert sorted(call.reason for call in calls) == ["", "another call was asking the same"]


def test_an_answer_that_came_after_the_lookup_is_found(
    model: StandIn, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the lookup of one call and its turn, another one has asked, stored and gone."""
    client = make_client(model)
    lookup = store.lookup

    def miss_and_be_late(key: str, *, stale: bool = False) -> Any:
        monkeypatch.setattr(store, "lookup", lookup)
        missing = lookup(key, stale=stale)
        client.create(**CALL)
        return missing

    monkeypatch.setattr(store, "lookup", miss_and_be_late)
    with llmcache.capture() as calls:
        assert client.create(**CALL) == client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit", "hit"]
    assert len(model.calls) == 1
    assert all(threads.drain(10) for threads in placement._of_tiers.values())
    assert places.acquire(calls[0].key, "next")[1] is None
    hits.flush()
    assert durable.entries().get().hits == 2


@pytest.mark.slow
def test_what_does_not_validate_is_asked_for_once(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found again when it is this call's turn, and must not be taken for an answer."""
    client = make_client(model)
    client.create(**CALL)
    key = llmcache.key_for(client, **CALL)
    payload = seal(ANSWER, key, b"not an answer", created=time.time())
    durable.entries().update(payload=payload)
    model.latency = 0.5
    assert outcomes(ask_in_threads(client, 5)) == ["hit"] * 4 + ["miss"]
    assert len(model.calls) == 2


def test_a_failure_lets_all_go_at_once(model: StandIn) -> None:
    """One after the other would take five times as long."""
    model.latency = 1.0
    model.fail_with = 400
    started = time.monotonic()
    futures = ask_in_threads(make_client(model), 5, max_retries=0)
    assert all(future.exception(30) for future in futures)
    assert len(model.calls) == 5
    assert time.monotonic() - started < 4.5


def test_an_answer_that_is_not_stored_lets_all_go(model: StandIn) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 4, cache_ttl=0)) == ["miss"] * 4
    assert len(model.calls) == 4


def test_nobody_waits_for_longer_than_that(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "WAIT_SECONDS": 0.2}
    model.latency = 1.0
    assert outcomes(ask_in_threads(make_client(model), 2)) == ["miss"] * 2


def test_reload_asks_whatever_others_ask(model: StandIn) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 2, cache_mode="reload")) == ["reload"] * 2


def test_waiters_hold_no_connection(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None}
    model.latency = 1.0
    opened: list[Any] = []

    def ask() -> None:
        make_client(model).create(**CALL)
        opened.extend(connections.all(initialized_only=True))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(connection.connection is None for connection in opened)
    assert len(model.calls) == 1


@pytest.mark.redis
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_who_asks_in_the_place_of_a_copy_that_is_refused_knows_the_generation(
    settings: Any, is_async: bool
) -> None:
    require(RedisServer)
    settings.LLMCACHE = {"CACHE": "redis"}
    llmcache.invalidate(tags=["any"])
    write_copy(KEY, draft().payload, None)
    refused = store.lookup(KEY)
    assert isinstance(refused, Found)
    lease = asyncio.run(aacquire(KEY, 1, refused)) if is_async else acquire(KEY, 1, refused)
    assert isinstance(lease, Lease)
    lease.end(Ending.RELEASED)
    assert lease.generation is not None
    assert lease.generation == store.generation()
    # (the next one has the same key)
    assert all(threads.drain(10) for threads in placement._of_tiers.values())
