"""The hot tier when a server fails, settings change or processes fork: nobody is kept waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from llmcache.store.hot import tier as hot
from tests.support.backends import (
    REDIS,
    both,
)
from tests.support.forks import in_a_fork
from tests.support.servers import RedisServer
from tests.support.twins import BOUND, KEY, OTHER_KEY, pools, seconds_to_fail

pytestmark = pytest.mark.django_db

# A server that fails


@both
def test_a_paused_server_keeps_nobody_waiting(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.write(KEY, b"copy", None)
    redis.pause()
    for _ in range(2):  # on a connection that is open, and on a new one
        assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
    assert seconds_to_fail(lambda: hot.write(KEY, b"copy", None)) < BOUND
    assert seconds_to_fail(lambda: hot.delete([KEY])) < BOUND
    redis.resume()
    assert hot.read(KEY) == b"copy"


@pytest.mark.slow
@both
def test_client_pause_keeps_nobody_waiting(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.write(KEY, b"copy", None)
    with Redis.from_url(redis.url) as operator:
        operator.execute_command("CLIENT", "PAUSE", "3000", "ALL")
        assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
        operator.execute_command("CLIENT", "UNPAUSE")
    assert hot.read(KEY) == b"copy"


@both
def test_a_restart_costs_no_failure(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    """Connections that the server has closed are replaced when they are taken."""
    use(backend_path)
    hot.write(KEY, b"copy", None)
    redis.kill()
    redis.start()
    assert hot.read(KEY) is None
    hot.write(KEY, b"copy", None)
    assert hot.read(KEY) == b"copy"


@both
def test_without_memory_copies_can_still_be_read_and_removed(
    use: Callable[..., None], backend_path: str
) -> None:
    with RedisServer("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as full:
        use(backend_path, LOCATION=full.url)
        hot.write(KEY, b"copy", None)
        hot.write(OTHER_KEY, b"copy", None)
        with Redis.from_url(full.url) as operator:
            operator.config_set("maxmemory", 1)
        assert seconds_to_fail(lambda: hot.write(KEY, b"new", None)) < BOUND
        with pytest.raises(RedisError):
            hot.probe()
        assert hot.read(KEY) == b"copy"
        hot.delete([KEY])
        assert hot.read_many([KEY, OTHER_KEY]) == {OTHER_KEY: b"copy"}


# Settings that change, and processes that fork


@both
def test_other_settings_are_another_tier(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    hot.write(KEY, b"copy", None)
    with RedisServer() as other:
        use(backend_path, LOCATION=other.url)
        assert hot.read(KEY) is None
        hot.write(KEY, b"another", None)
    use(backend_path)
    assert hot.read(KEY) != b"another"


@both
def test_a_twin_lasts(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)
    assert hot.backend() is hot.backend()


@both
def test_no_connection_crosses_a_fork(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)
    hot.write(KEY, b"copy", None)
    ours = _connection_id()
    theirs = in_a_fork(lambda: [_connection_id(), hot.read(KEY)])
    assert theirs[1] == b"copy"
    assert theirs[0] != ours
    assert (_connection_id(), hot.read(KEY)) == (ours, b"copy")


def test_a_forked_child_begins_with_nothing(use: Callable[..., None]) -> None:
    use(REDIS)
    hot.write(KEY, b"copy", None)
    with hot._lock:  # as if another thread were making a twin
        assert in_a_fork(lambda: [len(hot._backends), hot.read(KEY)]) == [0, b"copy"]


def _connection_id() -> int:
    return int(_pool_client().client_id())


def _pool_client() -> Any:
    hot.read(KEY)
    return Redis(connection_pool=pools()[0])
