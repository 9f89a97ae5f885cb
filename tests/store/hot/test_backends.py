"""The backend of llmcache, and the alias that names it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llmcache.backends.pool import CONNECTIONS
from llmcache.breakers import NoneIsFree
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from tests.support.copies import pool, write_copy
from tests.support.patience import BOUND, KEY, seconds_to_fail
from tests.support.servers import RedisServer

pytestmark = pytest.mark.django_db


def connection() -> Any:
    """One as the hot tier would open it."""
    return pool().make_connection()


def timeouts(options: dict[str, Any]) -> tuple[float, float]:
    return options["socket_timeout"], options["socket_connect_timeout"]


# The backend and the alias


def own_names(key: str, prefix: str, version: int) -> str:
    return f"{version}/{prefix}/{key}"


def test_what_the_alias_is_asked_is_what_the_tier_has(
    use: Callable[..., None], redis: RedisServer
) -> None:
    use(KEY_PREFIX="site", VERSION=3, KEY_FUNCTION=f"{__name__}.own_names")
    write_copy(KEY, b"copy", None)
    name = epochs.ensure().copies + KEY
    assert caches["hot"].get(name) == b"copy"
    with Redis.from_url(redis.url) as client:
        assert client.exists(f"3/site/{name}")
    caches["hot"].clear()
    assert hot.read(KEY) is None


async def test_the_alias_can_be_awaited(use: Callable[..., None]) -> None:
    use()
    await caches["hot"].aset("name", b"7", 60)
    assert await caches["hot"].aget("name") == b"7"
    assert await caches["hot"].aget("name", version=2) is None
    assert await caches["hot"].aget_many(["name", "other"]) == {"name": b"7"}


@pytest.mark.parametrize("value", ["text", 7, None, {"a": 1}])
def test_only_bytes_are_kept(use: Callable[..., None], value: object) -> None:
    use(options={"SERIALIZER": "django_redis.serializers.pickle.PickleSerializer"})
    with pytest.raises(TypeError, match="stores bytes"):
        caches["hot"].set("name", value)


@pytest.mark.parametrize("value", [b"7", b"", b"\x80\x04K\x01."], ids=["number", "none", "pickle"])
def test_bytes_come_back_as_they_are(use: Callable[..., None], value: bytes) -> None:
    """(django-redis makes numbers of what looks like one.)"""
    use()
    hot.put("name", value, 60)
    assert hot.values(["name"]) == {"name": value}
    assert caches["hot"].get("name") == value


def test_also_where_the_clients_would_decode_them(use: Callable[..., None]) -> None:
    use(OPTIONS={"CONNECTION_POOL_KWARGS": {"decode_responses": True}})
    write_copy(KEY, b"copy", None)
    assert (hot.read(KEY), hot.read_many([KEY])) == (b"copy", {KEY: b"copy"})


@pytest.mark.parametrize("join", [list, ",".join])
def test_reads_go_where_was_written(
    use: Callable[..., None], redis: RedisServer, join: Callable[..., Any]
) -> None:
    """The second location is in the place of a replica that lags: it has nothing yet."""
    use(LOCATION=join([redis.url, redis.url.replace("/0", "/7")]))
    write_copy(KEY, b"copy", None)
    assert hot.read(KEY) == b"copy"
    assert hot.read_many([KEY]) == {KEY: b"copy"}
    hot.delete([KEY])


def test_timeouts_are_short_unless_it_is_said(use: Callable[..., None], redis: RedisServer) -> None:
    use()
    assert timeouts(pool().connection_kwargs) == (0.1, 0.1)
    # (of an alias with the same URL)
    use(options={"SOCKET_TIMEOUT": 0.7, "SOCKET_CONNECT_TIMEOUT": 0.02})
    assert timeouts(pool().connection_kwargs) == (0.7, 0.02)
    assert hot.patience() == pytest.approx(2.82)
    use(LOCATION=f"{redis.url}?socket_timeout=0.9&socket_connect_timeout=0.01")
    assert timeouts(pool().connection_kwargs) == (0.9, 0.01)
    assert hot.patience() == pytest.approx(3.61)


def test_nothing_is_tried_again(use: Callable[..., None]) -> None:
    retries = {"retry": Retry(NoBackoff(), 5), "retry_on_timeout": True}
    use(options={"CONNECTION_POOL_KWARGS": retries | {"retry_on_error": [OSError]}})
    assert connection().retry.get_retries() == 0


def test_nobody_waits_long_for_a_connection(use: Callable[..., None]) -> None:
    use(options={"CONNECTION_POOL_KWARGS": {"max_connections": 1, "timeout": 0.2}})
    hot.read(KEY)
    taken = pool().get_connection()
    for work in (lambda: hot.read(KEY), lambda: write_copy(KEY, b"copy", None)):
        with pytest.raises(NoneIsFree):
            work()
    pool().release(taken)
    assert hot.read(KEY) is None


def test_who_waits_is_given_what_another_one_releases(use: Callable[..., None]) -> None:
    use(options={"CONNECTION_POOL_KWARGS": {"max_connections": 2, "timeout": 30}})
    write_copy(KEY, b"copy", None)
    taken = [pool().get_connection() for _ in range(2)]
    with ThreadPoolExecutor(8) as executor:
        reading = [executor.submit(hot.read, KEY) for _ in range(8)]
        for each_taken in taken:
            pool().release(each_taken)
        assert {future.result(10) for future in reading} == {b"copy"}


def test_an_unknown_option_is_the_same_error_each_time(use: Callable[..., None]) -> None:
    """Each connection that could not be made took a place in the pool along."""
    use(options={"CONNECTION_POOL_KWARGS": {"socket_conect_timeout": 1}})
    for _ in range(CONNECTIONS + 20):
        with pytest.raises(TypeError, match="socket_conect_timeout"):
            hot.read(KEY)


def test_a_process_of_many_threads_has_connections_for_all(use: Callable[..., None]) -> None:
    """redis-py would refuse the hundred and first; here they take turns, and do not storm."""
    use()
    write_copy(KEY, b"for all", None)
    start = threading.Barrier(threads := 200)

    def read(_: int) -> bytes | None:
        start.wait()
        return hot.read(KEY)

    with ThreadPoolExecutor(threads) as executor:
        assert set(executor.map(read, range(threads))) == {b"for all"}
    assert len(pool()._available_connections) <= CONNECTIONS


@pytest.mark.parametrize("everywhere", [True, False])
def test_what_fails_is_not_ignored(
    use: Callable[..., None], redis: RedisServer, settings: Any, everywhere: bool
) -> None:
    """django-redis would let a failed delete look done."""
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = everywhere
    use(options={} if everywhere else {"IGNORE_EXCEPTIONS": True})
    redis.stop()
    for work in (lambda: hot.delete([KEY]), lambda: hot.read(KEY), lambda: hot.read_many([KEY])):
        assert seconds_to_fail(work) < BOUND


def test_sentinels_are_asked_briefly_and_for_the_primary(use: Callable[..., None]) -> None:
    use(options={"SENTINELS": [("127.0.0.1", 1)]}, LOCATION="redis://service/0")
    assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
    [sentinel] = pool().sentinel_manager.sentinels
    assert timeouts(sentinel.connection_pool.connection_kwargs) == (0.1, 0.1)
    assert sentinel.get_retry().get_retries() == 0
    assert pool().is_master
