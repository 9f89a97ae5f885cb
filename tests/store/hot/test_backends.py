"""The private twins of the cache backends: the same server, and timeouts of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches
from django_redis.pool import ConnectionFactory  # type: ignore[import-untyped]
from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llmcache.breakers import NoneIsFree
from llmcache.store.hot import backends, epochs
from llmcache.store.hot import tier as hot
from tests.support.backends import (
    DJANGO_REDIS,
    REDIS,
    both,
)
from tests.support.servers import RedisServer
from tests.support.twins import BOUND, KEY, pools, seconds_to_fail

pytestmark = pytest.mark.django_db


def connection() -> Any:
    """One as the hot tier would open it."""
    hot.read(KEY)
    return pools()[0].make_connection()


def timeouts(options: dict[str, Any]) -> tuple[float, float]:
    return options["socket_timeout"], options["socket_connect_timeout"]


# The twin and the alias


def own_names(key: str, prefix: str, version: int) -> str:
    return f"{version}/{prefix}/{key}"


@both
def test_both_have_the_same_keys(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path, KEY_PREFIX="site", VERSION=3, KEY_FUNCTION=f"{__name__}.own_names")
    hot.write(KEY, b"copy", None)
    name = epochs.ensure().name_of(KEY)
    assert caches["hot"].get(name) == b"copy"
    with Redis.from_url(redis.url) as client:
        assert client.exists(f"3/site/{name}")


@both
def test_the_alias_stays_as_it_is(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)
    hot.read(KEY)
    caches["hot"].get(KEY)
    theirs = _pool_of(caches["hot"])
    assert theirs not in pools()
    assert _timeouts_of(theirs) == (5, 5)
    assert timeouts(pools()[0].connection_kwargs) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("backend_path", "join"),
    [
        (REDIS, list),
        (REDIS, ",".join),
        (REDIS, ";".join),
        (DJANGO_REDIS, list),
        (DJANGO_REDIS, ",".join),
    ],
)
def test_reads_go_where_was_written(
    use: Callable[..., None], redis: RedisServer, backend_path: str, join: Callable[..., Any]
) -> None:
    """The second location is in the place of a replica that lags: it has nothing yet."""
    use(backend_path, LOCATION=join([redis.url, redis.url.replace("/0", "/7")]))
    hot.write(KEY, b"copy", None)
    assert hot.read(KEY) == b"copy"
    assert hot.read_many([KEY]) == {KEY: b"copy"}
    hot.delete([KEY])


@both
def test_two_aliases_with_one_url_have_their_own_timeouts(
    use: Callable[..., None], redis: RedisServer, settings: Any, backend_path: str
) -> None:
    """django-redis keeps one pool for both."""
    use(backend_path, LOCATION=redis.url.replace("/0", "/5"))
    slow = {**settings.CACHES["hot"]}
    names = ("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")
    if backend_path == REDIS:
        names = ("socket_timeout", "socket_connect_timeout")
    slow["OPTIONS"] = slow["OPTIONS"] | dict.fromkeys(names, 7)
    settings.CACHES = {**settings.CACHES, "slow": slow}
    caches["slow"].get(KEY)
    hot.read(KEY)
    assert timeouts(pools()[0].connection_kwargs) == (0.1, 0.1)
    assert timeouts(_pool_of(caches["slow"]).connection_kwargs) == (7, 7)

    settings.LLMCACHE = {"CACHE": "slow"}
    hot.read(KEY)
    assert timeouts(pools()[0].connection_kwargs) == (0.1, 0.1)


def _pool_of(cache: Any) -> Any:
    client = cache.client if hasattr(cache, "client") else cache._cache
    return getattr(client.get_client(write=False), "connection_pool")  # noqa: B009


def _timeouts_of(pool: Any) -> tuple[float, float]:
    made = pool.make_connection()
    return made.socket_timeout, made.socket_connect_timeout


@pytest.mark.parametrize(
    ("backend_path", "options"),
    [
        (REDIS, {"socket_timeout": 0.02, "socket_connect_timeout": 0.03}),
        (DJANGO_REDIS, {"SOCKET_TIMEOUT": 0.02, "SOCKET_CONNECT_TIMEOUT": 0.03}),
    ],
    ids=["redis", "django-redis"],
)
def test_shorter_timeouts_stay(
    use: Callable[..., None], backend_path: str, options: dict[str, float]
) -> None:
    use(backend_path, options)
    assert _timeouts_of(_pool_of(hot.backend())) == (0.02, 0.03)


@both
def test_timeouts_in_the_url_are_bounded_too(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path, LOCATION=f"{redis.url}?socket_timeout=9&socket_connect_timeout=0.01")
    assert _timeouts_of(_pool_of(hot.backend())) == (0.1, 0.01)


RETRIES = {"retry": Retry(NoBackoff(), 5), "retry_on_timeout": True, "retry_on_error": [OSError]}


@pytest.mark.parametrize(
    ("backend_path", "options"),
    [(REDIS, RETRIES), (DJANGO_REDIS, {"CONNECTION_POOL_KWARGS": RETRIES}), (REDIS, {})],
    ids=["redis", "django-redis", "as they come"],
)
def test_nothing_is_tried_again(
    use: Callable[..., None], backend_path: str, options: dict[str, Any]
) -> None:
    use(backend_path, options)
    assert connection().retry.get_retries() == 0


@pytest.mark.parametrize(
    ("backend_path", "options"),
    [
        (REDIS, {"pool_class": "redis.BlockingConnectionPool", "max_connections": 1}),
        (REDIS, {"pool_class": BlockingConnectionPool, "max_connections": 1}),
        (
            DJANGO_REDIS,
            {
                "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
                "CONNECTION_POOL_KWARGS": {"max_connections": 1, "timeout": 30},
            },
        ),
    ],
    ids=["redis", "redis by class", "django-redis"],
)
def test_nobody_waits_long_for_a_connection(
    use: Callable[..., None], backend_path: str, options: dict[str, Any]
) -> None:
    use(backend_path, options)
    hot.read(KEY)
    taken = pools()[0].get_connection()
    with pytest.raises(NoneIsFree):
        hot.read(KEY)
    pools()[0].release(taken)
    assert hot.read(KEY) is None


@pytest.mark.parametrize(
    ("backend_path", "options"),
    [
        (REDIS, {"socket_conect_timeout": 1}),
        (REDIS, {"socket_conect_timeout": 1, "pool_class": "redis.BlockingConnectionPool"}),
        (DJANGO_REDIS, {"CONNECTION_POOL_KWARGS": {"socket_conect_timeout": 1}}),
    ],
    ids=["redis", "redis by class", "django-redis"],
)
def test_an_unknown_option_is_the_same_error_each_time(
    use: Callable[..., None], backend_path: str, options: dict[str, Any]
) -> None:
    """Each connection that could not be made took a place in the pool along."""
    use(backend_path, options)
    for _ in range(backends.CONNECTIONS + 20):
        with pytest.raises(TypeError, match="socket_conect_timeout"):
            hot.read(KEY)


@both
def test_a_process_of_many_threads_has_connections_for_all(
    use: Callable[..., None], backend_path: str
) -> None:
    """redis-py would refuse the hundred and first; here they take turns, and do not storm."""
    use(backend_path)
    hot.write(KEY, b"for all", None)
    start = threading.Barrier(threads := 200)

    def read(_: int) -> bytes | None:
        start.wait()
        return hot.read(KEY)

    with ThreadPoolExecutor(threads) as executor:
        assert set(executor.map(read, range(threads))) == {b"for all"}
    assert len(pools()[0]._connections) <= backends.CONNECTIONS


def test_a_limit_of_their_own_stays(use: Callable[..., None]) -> None:
    use(REDIS, {"max_connections": 7})
    hot.read(KEY)
    assert pools()[0].max_connections == 7


def test_a_connection_factory_of_their_own_is_used(use: Callable[..., None]) -> None:
    use(DJANGO_REDIS, {"CONNECTION_FACTORY": f"{__name__}.OwnFactory"})
    hot.read(KEY)
    assert _timeouts_of(pools()[0]) == (0.1, 0.1)
    assert connection().client_name == "theirs"


def test_a_connection_factory_for_all_aliases_is_used(
    use: Callable[..., None], settings: Any
) -> None:
    settings.DJANGO_REDIS_CONNECTION_FACTORY = f"{__name__}.OwnFactory"
    use(DJANGO_REDIS)
    assert connection().client_name == "theirs"


class OwnFactory(ConnectionFactory):  # type: ignore[misc]
    """One that gives each connection a name."""

    def make_connection_params(self, url: str) -> Any:
        return super().make_connection_params(url) | {"client_name": "theirs"}


@pytest.mark.parametrize("everywhere", [True, False])
def test_what_fails_is_not_ignored(
    use: Callable[..., None], redis: RedisServer, settings: Any, everywhere: bool
) -> None:
    """django-redis would let a failed delete look done."""
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = everywhere
    use(DJANGO_REDIS, {} if everywhere else {"IGNORE_EXCEPTIONS": True})
    redis.stop()
    for work in (lambda: hot.delete([KEY]), lambda: hot.read(KEY), lambda: hot.read_many([KEY])):
        assert seconds_to_fail(work) < BOUND


def test_sentinels_are_asked_briefly_and_once(use: Callable[..., None]) -> None:
    use(
        DJANGO_REDIS,
        {
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", 1)],
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
        },
        LOCATION="redis://service/0",
    )
    assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
    [sentinel] = pools()[0].sentinel_manager.sentinels
    assert timeouts(sentinel.connection_pool.connection_kwargs) == (0.1, 0.1)
    assert sentinel.get_retry().get_retries() == 0


def test_sentinels_are_asked_for_the_primary_alone(use: Callable[..., None]) -> None:
    """Of one location that client makes two: to write to the primary, and read from a replica."""
    use(
        DJANGO_REDIS,
        {
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", 1)],
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
        },
        LOCATION="redis://service/0",
    )
    assert _pool_of(hot.backend()).is_master
