"""Who is interrupted, or closes a loop in the middle, spoils nothing for the next who asks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches
from redis import Connection

from llmcache.backends import RedisCache, quick
from tests.support.backends import OWN, parameters
from tests.support.servers import RedisServer, require

NAMES = [f"name {number}" for number in range(50)]
THREADS = 16


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture
def cache(settings: Any, redis: RedisServer) -> Iterator[RedisCache]:
    settings.CACHES = {**settings.CACHES, "hot": parameters(OWN, redis.url.replace("/0", "/3"))}
    made: Any = caches.create_connection("hot")
    made.set_many({name: name.encode() for name in NAMES})
    yield made
    made.disconnect()


@pytest.mark.parametrize("on", [(Connection, "read_response"), (quick, "prepare")])
def test_a_connection_that_was_opened_in_part_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch, cache: RedisCache, on: tuple[Any, str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    cache.disconnect()
    with monkeypatch.context() as patch:
        patch.setattr(*on, interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.get(NAMES[0])
    assert [cache.get(name) for name in NAMES] == [name.encode() for name in NAMES]
    assert cache.get_many(NAMES) == {name: name.encode() for name in NAMES}


def test_loops_of_many_threads_may_be_closed_in_the_middle(cache: RedisCache) -> None:
    async def leave() -> None:
        name = NAMES[0]
        reply = cache.ask_on_loop(name)
        assert (cache.get(name) if reply is None else await reply) == name.encode()
        cache.ask_on_loop(name)  # nobody waits for that

    def leave_loops(_: int) -> None:
        for _ in range(30):
            asyncio.run(leave())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(leave_loops, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)
