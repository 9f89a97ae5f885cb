"""A read past the layers of the clients: the same answers, and none that belongs to another."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import caches
from redis import Redis
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from llmcache.backends import quick
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from tests.support.backends import OWN, parameters
from tests.support.copies import KEYS, at_hand, copy_of, pool, write_copy
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

    def use_alias(**options: Any) -> None:
        params = parameters(OWN, url(redis), **options)
        settings.CACHES = {**settings.CACHES, "hot": params}
        settings.LLMCACHE = {"CACHE": "hot"}
        for key in KEYS:
            write_copy(key, copy_of(key), None)

    return use_alias


def url(redis: RedisServer) -> str:
    return redis.url.replace("//", "//:secret@").replace("/0", "/3")


def name_of(key: str) -> str:
    """What the backend calls a copy."""
    return epochs.ensure().copies + key


def server_name(key: str) -> str:
    return f":1:{name_of(key)}"


def others_at_hand(count: int) -> None:
    taken = [pool().get_connection() for _ in range(count)]
    for connection in taken:
        pool().release(connection)


def test_a_hit_is_one_question(use: Callable[..., None], redis: RedisServer) -> None:
    use()
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


def test_a_broken_alias_says_so_when_it_is_used(settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "hot": parameters(OWN, "no://where")}
    settings.LLMCACHE = {"CACHE": "hot"}
    for _ in range(2):
        with pytest.raises(ValueError, match="scheme"):
            hot.read(KEYS[0])


def test_threads_get_their_own_replies(use: Callable[..., None]) -> None:
    use()

    def wrong(key: str) -> int:
        return sum(hot.read(key) != copy_of(key) for _ in range(100))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(wrong, KEYS)) == 0
    assert 1 <= len(at_hand()) <= 8


def test_a_reply_that_comes_late_is_nobody_elses(
    use: Callable[..., None], redis: RedisServer
) -> None:
    use()
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
    use()
    hot.read(KEYS[0])
    [connection] = at_hand()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        reader = SimpleNamespace(feed=interrupted)
        patch.setattr(connection, "reader", reader)
        with pytest.raises(KeyboardInterrupt):
            hot.read(KEYS[1])
    assert not connection.is_connected
    assert hot.read(KEYS[2]) == copy_of(KEYS[2])


def test_connections_that_the_server_has_closed_cost_no_failure(
    use: Callable[..., None], redis: RedisServer
) -> None:
    use()
    hot.read(KEYS[0])
    others_at_hand(5)
    with Redis.from_url(url(redis)) as operator:
        operator.client_kill_filter(_type="normal", skipme=True)
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])
    assert sum(connection.is_connected for connection in at_hand()) == 1


@pytest.mark.parametrize("options", [{}, {"health_check_interval": 30}], ids=["plain", "checked"])
class TestConnections:
    def test_a_large_copy_comes_in_pieces(
        self, use: Callable[..., None], options: dict[str, Any]
    ) -> None:
        use(CONNECTION_POOL_KWARGS=options)
        large = random.Random(1).randbytes(3_000_000)
        write_copy(KEYS[0], large, None)
        assert hot.read(KEYS[0]) == large
        assert hot.read(KEYS[1]) == copy_of(KEYS[1])

    def test_an_error_is_raised_and_the_next_reply_is_right(
        self, use: Callable[..., None], redis: RedisServer, options: dict[str, Any]
    ) -> None:
        use(CONNECTION_POOL_KWARGS=options)
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
        use(CONNECTION_POOL_KWARGS=options)
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

    def test_what_is_written_costs_its_timeout_too(
        self, use: Callable[..., None], redis: RedisServer, options: dict[str, Any]
    ) -> None:
        use(CONNECTION_POOL_KWARGS=options)
        others_at_hand(3)
        redis.pause()
        try:
            for write in (
                lambda: hot.add("a name", b"token", 1),
                lambda: hot.put("a name", b"value", 1),
                lambda: hot.drop(["a name"]),
            ):
                with pytest.raises(RedisTimeoutError):
                    write()
        finally:
            redis.resume()


def test_a_reply_that_comes_byte_by_byte_costs_little_more() -> None:
    ours, theirs = socket.socketpair()
    connection = SimpleNamespace(
        _sock=ours, socket_timeout=0.1, health_check_interval=0, disconnect=ours.close
    )
    quick.prepare(connection)
    started = time.monotonic()
    trickle = Thread(target=send_slowly, args=(theirs, b"$500\r\n" + b"x" * 500))
    trickle.start()
    with ours, theirs, pytest.raises(RedisTimeoutError):
        quick.ask(connection, b"anything")
    assert time.monotonic() - started < 2
    trickle.join()


def send_slowly(sock: socket.socket, reply: bytes) -> None:
    with suppress(OSError):  # nobody wants the rest
        for byte in reply:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)


def test_nonsense_is_an_error(monkeypatch: pytest.MonkeyPatch, use: Callable[..., None]) -> None:
    use()
    hot.read(KEYS[0])
    [connection] = at_hand()
    connection.reader.feed(b"nonsense\r\n")
    with pytest.raises(InvalidResponse):
        hot.read(KEYS[0])
    assert hot.read(KEYS[1]) == copy_of(KEYS[1])


def test_a_server_that_is_gone_is_tried_briefly(
    use: Callable[..., None], redis: RedisServer
) -> None:
    use()
    hot.read(KEYS[0])
    redis.stop()
    try:
        started = time.monotonic()
        with pytest.raises(RedisError):
            hot.read(KEYS[1])
        assert time.monotonic() - started < 1
        assert not any(connection.is_connected for connection in at_hand())
    finally:
        redis.start()


def test_no_connection_at_hand_crosses_a_fork(use: Callable[..., None]) -> None:
    use()
    hot.read(KEYS[0])
    ours = at_hand()[0]._sock.getsockname()
    theirs = in_a_fork(lambda: [hot.read(KEYS[1]), at_hand()[0]._sock.getsockname()])
    assert theirs[0] == copy_of(KEYS[1])
    assert theirs[1] != ours
    assert hot.read(KEYS[2]) == copy_of(KEYS[2])
    assert at_hand()[0]._sock.getsockname() == ours


def test_what_is_at_hand_is_closed_with_the_tier(use: Callable[..., None]) -> None:
    use()
    hot.read(KEYS[0])
    [connection] = at_hand()
    use()
    hot.read(KEYS[0])
    assert not connection.is_connected
    assert caches["hot"].get(name_of(KEYS[1])) == copy_of(KEYS[1])
