"""Copies asked for on an event loop: the right replies, no thread, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

import llmcache
from llmcache import store
from llmcache.background import database
from llmcache.flow.fairness import take_turn
from llmcache.outcomes import Tier
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.backends import OWN, parameters
from tests.support.clients import CALL, make_client
from tests.support.copies import KEYS, at_hand, copy_of, pool, write_copy
from tests.support.entries import KEY, draft, tier_of
from tests.support.servers import RedisServer, require

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _hot(settings: Any, redis: RedisServer) -> None:
    """A copy for each key, and a connection at hand."""
    settings.CACHES = {**settings.CACHES, "hot": parameters(OWN, redis.url)}
    settings.LLMCACHE = {"CACHE": "hot"}
    for key in KEYS:
        write_copy(key, copy_of(key), None)
    hot.read(KEYS[0])


async def read(key: str) -> bytes | None:
    reply = hot.ask(key)
    assert reply is not None
    return await reply


async def read_all(keys: list[str]) -> list[Any]:
    return await asyncio.gather(*map(read, keys), return_exceptions=True)


def opened() -> int:
    return int(pool()._created_connections)


def test_each_gets_its_own_reply_on_one_connection() -> None:
    keys = random.Random(1).choices([*KEYS, "f" * 64], k=2_000)
    expected = [None if key == "f" * 64 else copy_of(key) for key in keys]
    assert asyncio.run(read_all(keys)) == expected
    assert opened() == len(at_hand()) == 1
    assert hot.read(KEYS[3]) == copy_of(KEYS[3])


def test_without_a_connection_at_hand_a_thread_has_to_do_it() -> None:
    async def ask() -> object:
        return hot.ask(KEYS[0])

    pool().disconnect()
    assert asyncio.run(ask()) is None


def test_large_replies_come_in_pieces() -> None:
    large = random.Random(1).randbytes(3_000_000)
    write_copy(KEYS[0], large, None)
    assert asyncio.run(read_all(KEYS[:3])) == [large, copy_of(KEYS[1]), copy_of(KEYS[2])]


@pytest.mark.slow
def test_more_is_asked_than_the_kernel_takes_at_once() -> None:
    keys = KEYS * 1_500
    assert asyncio.run(read_all(keys)) == [copy_of(key) for key in keys]


def test_an_error_is_for_who_asked(redis: RedisServer) -> None:
    with Redis.from_url(redis.url) as operator:
        name = f":1:{epochs.ensure().copies}{KEYS[1]}"
        operator.delete(name)
        operator.lpush(name, "no string")
        first, second, third = asyncio.run(read_all(KEYS[:3]))
        operator.delete(name)
    assert (first, third) == (copy_of(KEYS[0]), copy_of(KEYS[2]))
    assert isinstance(second, ResponseError)


def test_a_reply_to_one_who_went_away_is_nobody_elses() -> None:
    async def go_away() -> list[Any]:
        going = [asyncio.ensure_future(read(key)) for key in KEYS[:10]]
        await asyncio.sleep(0)
        for task in going[::2]:
            task.cancel()
        return await asyncio.gather(*going, *map(read, KEYS[10:20]), return_exceptions=True)

    results = asyncio.run(go_away())
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:10:2])
    assert results[1:10:2] == [copy_of(key) for key in KEYS[1:10:2]]
    assert results[10:] == [copy_of(key) for key in KEYS[10:20]]


def test_a_server_that_does_not_answer_costs_its_timeout(redis: RedisServer) -> None:
    redis.pause()
    try:
        started = time.monotonic()
        results = asyncio.run(read_all(KEYS[:5]))
        assert time.monotonic() - started < 1
    finally:
        redis.resume()
    assert {type(result) for result in results} == {RedisTimeoutError}
    assert not any(connection.is_connected for connection in at_hand())
    assert [hot.read(key) for key in KEYS[5:]] == [copy_of(key) for key in KEYS[5:]]


def test_connections_that_the_server_has_closed_are_given_up(redis: RedisServer) -> None:
    with Redis.from_url(redis.url) as operator:
        operator.client_kill_filter(_type="normal", skipme=True)
    results = asyncio.run(read_all(KEYS[:5]))
    assert all(isinstance(result, RedisError) for result in results)
    assert not any(connection.is_connected for connection in at_hand())
    assert hot.read(KEYS[0]) == copy_of(KEYS[0])
    assert asyncio.run(read_all(KEYS)) == [copy_of(key) for key in KEYS]


def test_loops_that_end_leave_nothing_behind() -> None:
    for _ in range(20):
        asyncio.run(read_all(KEYS[:3]))
    assert opened() == len(at_hand()) == 1


def test_a_loop_that_is_closed_in_the_middle_leaves_no_reply_behind() -> None:
    async def leave() -> None:
        assert hot.ask(KEYS[1]) is not None

    with pytest.warns(RuntimeWarning, match="never awaited"):
        asyncio.run(leave())
    hot.read(KEYS[0])
    assert asyncio.run(read_all(KEYS)) == [copy_of(key) for key in KEYS]
    assert opened() == len(at_hand())
    assert sum(connection.is_connected for connection in at_hand()) == 1


# Through the store and the client


@pytest.mark.django_db(transaction=True)
def test_a_hit_needs_no_thread(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(model, async_client=True)

    async def ask(count: int) -> list[Any]:
        return await asyncio.gather(*(client.create(**CALL) for _ in range(count)))

    first = asyncio.run(ask(1))
    asyncio.run(ask(1))
    with monkeypatch.context() as patch:
        patch.setattr(database, "arun", None)
        with llmcache.capture() as calls:
            answers = asyncio.run(ask(100))
    assert {(call.outcome, call.tier) for call in calls} == {("hit", "hot")}
    assert answers == first * 100
    assert len(model.calls) == 1
    assert hits._take()[calls[0].key] >= 100


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("breaks", ["pause", "stop"])
def test_the_rows_answer_when_it_fails(redis: RedisServer, breaks: str) -> None:
    assert store.save(draft()) is None
    assert tier_of(asyncio.run(store.alookup(KEY))) == Tier.HOT
    getattr(redis, breaks)()
    try:
        for _ in range(5):
            assert tier_of(asyncio.run(store.alookup(KEY))) == Tier.DURABLE
    finally:
        redis.resume()
        redis.start()


@pytest.mark.django_db(transaction=True)
def test_what_is_not_there_is_looked_up_in_the_rows() -> None:
    assert store.save(draft()) is None
    hot.delete([KEY])
    tiers = [tier_of(asyncio.run(store.alookup(KEY))) for _ in range(2)]
    assert tiers == [Tier.DURABLE, Tier.HOT]
    assert asyncio.run(store.alookup("f" * 64)) == store.Missing()


# Turns


def turns_while(work: Callable[[], Any], count: int) -> int:
    """How many turns the loop made while so many coroutines began at once."""

    async def tick(ticks: list[int]) -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def begin() -> int:
        ticks: list[int] = []
        ticker = asyncio.ensure_future(tick(ticks))
        await asyncio.gather(*(work() for _ in range(count)))
        ticker.cancel()
        return len(ticks)

    return asyncio.run(begin())


def test_of_many_who_begin_at_once_some_begin_in_each_turn() -> None:
    async def begin() -> None:
        await take_turn()
        time.sleep(0.0001)  # noqa: ASYNC251 - as who computes a key

    async def begin_anyhow() -> None:
        time.sleep(0.0001)  # noqa: ASYNC251

    assert turns_while(begin, 320) >= 8
    assert turns_while(begin_anyhow, 320) < 4


def test_who_waits_for_a_turn_may_go_away() -> None:
    async def begin() -> None:
        await take_turn()
        time.sleep(0.002)  # noqa: ASYNC251

    async def go_away() -> list[Any]:
        tasks = [asyncio.ensure_future(begin()) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(2):  # on a second loop, too
        results = asyncio.run(go_away())
        assert [type(result) for result in results].count(asyncio.CancelledError) == 1
