"""The short way to read a copy from Redis: the same answers, and none that belongs to another."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches
from django_redis.client import DefaultClient  # type: ignore[import-untyped]
from django_redis.compressors.zlib import ZlibCompressor  # type: ignore[import-untyped]
from redis import ConnectionPool, Redis
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from llmcache.serializers import BytesSerializer
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from llmcache.store.hot.sockets import Line, SocketLine
from tests.support.backends import DJANGO_REDIS, REDIS, both
from tests.support.copies import KEYS, at_hand, copy_of, direct
from tests.support.forks import in_a_fork
from tests.support.servers import RedisServer, require

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer("--requirepass", "secret") as server:
        yield server


@pytest.fixture
def use(settings: Any, redis: RedisServer) -> Callable[..., None]:
    """Make the alias ``hot`` of these parameters the hot tier, with a copy for each key."""

    def use_alias(backend_path: str, options: dict[str, Any] | None = None, **more: Any) -> None:
        name = "SERIALIZER" if backend_path == DJANGO_REDIS else "serializer"
        params: dict[str, Any] = {
            "BACKEND": backend_path,
            "LOCATION": url(redis),
            "OPTIONS": {name: "llmcache.serializers.BytesSerializer", **(options or {})},
        }
        settings.CACHES = {**settings.CACHES, "hot": params | more}
        settings.LLMCACHE = {"CACHE": "hot"}
        for key in KEYS:
            hot.write(key, copy_of(key), None)

    return use_alias


def url(redis: RedisServer) -> str:
    return redis.url.replace("//", "//:secret@").replace("/0", "/3")


def name_of(key: str) -> str:
    """What the backend calls a copy."""
    return epochs.ensure().name_of(key)


def server_name(key: str) -> str:
    return f":1:{name_of(key)}"


class OwnClient(DefaultClient):  # type: ignore[misc]
    """One of a project's own."""


class OwnPool(ConnectionPool):
    """As it is, but not redis-py's own."""


class OwnSerializer(BytesSerializer):
    """One of a project's own."""


class OwnCompressor(ZlibCompressor):  # type: ignore[misc]
    """One of a project's own."""


@both
def test_a_hit_is_one_question(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path, KEY_PREFIX="site", VERSION=3)
    hot.read(KEYS[0])
    with Redis.from_url(url(redis)) as operator:
        operator.config_resetstat()
        assert hot.read(KEYS[1]) == copy_of(KEYS[1])
        assert hot.read("f" * 64) is None
        calls = {name: stats["calls"] for name, stats in operator.info("commandstats").items()}
    calls.pop("cmdstat_info", None)
    calls.pop("cmdstat_config|resetstat", None)
    assert calls == {"cmdstat_get": 2}
    assert len(at_hand()) == 1


@pytest.mark.parametrize(
    ("backend_path", "options"),
    [
        (REDIS, {"max_connections": 7}),
        (REDIS, {"pool_class": f"{__name__}.OwnPool"}),
        (REDIS, {"serializer": f"{__name__}.OwnSerializer"}),
        (DJANGO_REDIS, {"CONNECTION_POOL_KWARGS": {"max_connections": 7}}),
        (DJANGO_REDIS, {"CLIENT_CLASS": f"{__name__}.OwnClient"}),
        (DJANGO_REDIS, {"SERIALIZER": f"{__name__}.OwnSerializer"}),
        (DJANGO_REDIS, {"COMPRESSOR": f"{__name__}.OwnCompressor"}),
    ],
)
def test_what_is_unusual_goes_through_the_backend(
    use: Callable[..., None], backend_path: str, options: dict[str, Any]
) -> None:
    use(backend_path, options)
    assert direct() is None
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])


@pytest.mark.filterwarnings("ignore:.*sharded client:UserWarning")  # (of django-redis itself)
def test_keys_that_are_spread_over_servers_are_left_to_the_backend(
    use: Callable[..., None], redis: RedisServer
) -> None:
    servers = [url(redis), url(redis).replace("/3", "/4")]
    use(DJANGO_REDIS, {"CLIENT_CLASS": "django_redis.client.ShardClient"}, LOCATION=servers)
    with Redis.from_url(servers[1]) as second:
        assert second.dbsize()
    assert direct() is None
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])


def test_a_broken_alias_says_so_when_it_is_used(settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "hot": {"BACKEND": REDIS, "LOCATION": "no://where"}}
    settings.LLMCACHE = {"CACHE": "hot"}
    assert hot.backend() is not None
    with pytest.raises(ValueError, match="scheme"):
        hot.read(KEYS[0])


@both
def test_threads_get_their_own_replies(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)

    def wrong(key: str) -> int:
        return sum(hot.read(key) != copy_of(key) for _ in range(100))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(wrong, KEYS)) == 0
    assert 1 <= len(at_hand()) <= 8


@both
def test_a_reply_that_comes_late_is_nobody_elses(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.read(KEYS[0])
    redis.pause()
    try:
        with pytest.raises(RedisTimeoutError):
            hot.read(KEYS[1])
    finally:
        redis.resume()
    assert [hot.read(key) for key in KEYS] == [copy_of(key) for key in KEYS]


def test_who_is_interrupted_leaves_no_reply_behind(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(REDIS)
    hot.read(KEYS[0])
    [line] = at_hand()

    def interrupted(size: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(line, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hot.read(KEYS[1])
    assert at_hand() == []
    assert hot.read(KEYS[2]) == copy_of(KEYS[2])


@both
def test_connections_that_the_server_has_closed_cost_no_failure(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.read(KEYS[0])
    found = direct()
    assert found is not None
    found._at_hand.extend([found._new_line() for _ in range(5)])
    with Redis.from_url(url(redis)) as operator:
        operator.client_kill_filter(_type="normal", skipme=True)
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])
    assert len(at_hand()) == 1


@pytest.mark.parametrize("options", [{}, {"health_check_interval": 30}], ids=["socket", "redis-py"])
class TestBothKindsOfLines:
    def test_is_chosen(self, use: Callable[..., None], options: dict[str, Any]) -> None:
        use(REDIS, options)
        hot.read(KEYS[0])
        assert [type(line) for line in at_hand()] == [Line if options else SocketLine]

    def test_a_large_copy_comes_in_pieces(
        self, use: Callable[..., None], options: dict[str, Any]
    ) -> None:
        use(REDIS, options)
        large = random.Random(1).randbytes(3_000_000)
        hot.write(KEYS[0], large, None)
        assert hot.read(KEYS[0]) == large
        assert hot.read(KEYS[1]) == copy_of(KEYS[1])

    def test_an_error_is_raised_and_the_next_reply_is_right(
        self, use: Callable[..., None], redis: RedisServer, options: dict[str, Any]
    ) -> None:
        use(REDIS, options)
        with Redis.from_url(url(redis)) as operator:
            operator.delete(server_name(KEYS[0]))
            operator.lpush(server_name(KEYS[0]), "no string")
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                hot.read(KEYS[0])
            operator.delete(server_name(KEYS[0]))
        assert hot.read(KEYS[1]) == copy_of(KEYS[1])

    def test_a_server_that_does_not_answer_costs_its_timeout(
        self, use: Callable[..., None], redis: RedisServer, options: dict[str, Any]
    ) -> None:
        use(REDIS, options)
        hot.read(KEYS[0])
        redis.pause()
        try:
            for _ in range(2):  # on a line that is open, and on a new one
                started = time.monotonic()
                with pytest.raises(RedisTimeoutError):
                    hot.read(KEYS[1])
                assert 0.05 < time.monotonic() - started < 1
        finally:
            redis.resume()
        assert [hot.read(key) for key in KEYS] == [copy_of(key) for key in KEYS]


def test_nonsense_is_an_error(monkeypatch: pytest.MonkeyPatch, use: Callable[..., None]) -> None:
    use(REDIS)
    hot.read(KEYS[0])
    monkeypatch.setattr(at_hand()[0], "_receive", lambda size: b"nonsense\r\n")
    with pytest.raises(InvalidResponse):
        hot.read(KEYS[0])
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])


@both
def test_a_server_that_is_gone_is_tried_briefly(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.read(KEYS[0])
    redis.stop()
    try:
        started = time.monotonic()
        with pytest.raises(RedisError):
            hot.read(KEYS[1])
        assert time.monotonic() - started < 1
        assert at_hand() == []
    finally:
        redis.start()


@both
def test_no_connection_at_hand_crosses_a_fork(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)
    hot.read(KEYS[0])
    ours = at_hand()[0].connection._sock.getsockname()
    theirs = in_a_fork(lambda: [hot.read(KEYS[1]), at_hand()[0].connection._sock.getsockname()])
    assert theirs[0] == copy_of(KEYS[1])
    assert theirs[1] != ours
    assert hot.read(KEYS[2]) == copy_of(KEYS[2])
    assert at_hand()[0].connection._sock.getsockname() == ours


@both
def test_what_is_at_hand_is_closed_with_the_tier(
    use: Callable[..., None], backend_path: str
) -> None:
    use(backend_path)
    hot.read(KEYS[0])
    [line] = at_hand()
    use(backend_path)
    hot.read(KEYS[0])
    assert line.connection._sock is None
    assert caches["hot"].get(name_of(KEYS[1])) == copy_of(KEYS[1])
