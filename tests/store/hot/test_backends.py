"""The hot tier: private twins of the cache backends, which keep nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django_redis.pool import ConnectionFactory  # type: ignore[import-untyped]
from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from llmcache.breakers import NoneIsFree
from llmcache.store.hot import backends, epochs
from llmcache.store.hot import tier as hot
from tests.support.backends import (
    ALL_HOT_TIERS,
    DJANGO_REDIS,
    REDIS,
    Backend,
    backend_parameters,
    both,
)
from tests.support.forks import in_a_fork
from tests.support.servers import RedisServer, require

pytestmark = pytest.mark.django_db

KEY = "ab" * 32

OTHER_KEY = "cd" * 32

# A server that does not answer costs 0.1 seconds. This leaves room for a busy machine, and none
# for the seconds that the libraries would wait.
BOUND = 1.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _all_is_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds a server that runs, and leaves one."""
    yield
    if "redis" in request.fixturenames:
        server = request.getfixturevalue("redis")
        server.resume()
        server.start()


@pytest.fixture
def use(settings: Any, redis: RedisServer) -> Callable[..., None]:
    """Make the alias ``hot`` of these parameters the hot tier."""

    def use_alias(backend_path: str, options: dict[str, Any] | None = None, **more: Any) -> None:
        name = "SERIALIZER" if backend_path == DJANGO_REDIS else "serializer"
        params: dict[str, Any] = {
            "BACKEND": backend_path,
            "LOCATION": redis.url,
            "OPTIONS": {name: "llmcache.serializers.BytesSerializer", **(options or {})},
        }
        settings.CACHES = {**settings.CACHES, "hot": params | more}
        settings.LLMCACHE = {"CACHE": "hot"}

    return use_alias


def pools() -> list[Any]:
    """The pools of connections that the hot tier has opened."""
    found: list[Any] = getattr(hot.backend(), "llmcache_pools")  # noqa: B009
    return found


def connection() -> Any:
    """One as the hot tier would open it."""
    hot.read(KEY)
    return pools()[0].make_connection()


def timeouts(options: dict[str, Any]) -> tuple[float, float]:
    return options["socket_timeout"], options["socket_connect_timeout"]


def seconds_to_fail(work: Callable[[], object]) -> float:
    started = time.monotonic()
    with pytest.raises((RedisError, OSError)):
        work()
    return time.monotonic() - started


# What it does, on every backend


@pytest.mark.parametrize(
    "backend", backend_parameters(["default"], ALL_HOT_TIERS[1:]), indirect=True
)
class TestNames:
    def test_of_two_who_add_one_is_first(self, backend: Backend) -> None:
        assert hot.add("a-name", b"mine", 60)
        assert not hot.add("a-name", b"yours", 60)
        assert hot.values(["a-name", "another"]) == {"a-name": b"mine"}

    def test_what_is_put_replaces_what_was_there(self, backend: Backend) -> None:
        hot.put("a-name", b"old", 60)
        hot.put("a-name", b"new", 60)
        assert hot.values(["a-name"]) == {"a-name": b"new"}

    def test_what_is_touched_lives_on(self, backend: Backend) -> None:
        hot.put("a-name", b"value", 1)
        assert hot.touch("a-name", 60)
        assert not hot.touch("another", 60)
        time.sleep(1.1)
        assert hot.values(["a-name"])

    def test_what_is_dropped_is_gone(self, backend: Backend) -> None:
        hot.put("a-name", b"value", 60)
        hot.put("another", b"value", 60)
        hot.drop(["a-name", "a-third"])
        assert list(hot.values(["a-name", "another"])) == ["another"]

    def test_copies_that_the_backend_refuses_leave_no_older_ones(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hot.write_many({KEY: (b"old", None), OTHER_KEY: (b"old", None)})
        monkeypatch.setattr(hot.backend(), "set_many", lambda named, timeout: [*named][:1])
        hot.write_many({KEY: (b"new", None), OTHER_KEY: (b"new", None)})
        assert hot.read_many([KEY, OTHER_KEY]) == {OTHER_KEY: b"old"}

    def test_it_can_be_tried(self, backend: Backend) -> None:
        hot.probe()

    def test_it_is_shared_unless_it_is_a_database(self, backend: Backend) -> None:
        assert hot.is_shared() is (backend.cache != "database")


@pytest.mark.parametrize("alias", [None, "default"])
def test_without_a_hot_tier_nothing_is_kept(settings: Any, alias: str | None) -> None:
    settings.LLMCACHE = {"CACHE": alias}
    hot.put("a-name", b"value", 60)
    assert hot.add("a-name", b"value", 60) is False
    assert hot.touch("a-name", 60) is False
    assert hot.values(["a-name"]) == {}
    assert hot.is_shared() is False
    assert hot.is_locked() is False
    hot.drop(["a-name"])
    hot.probe()


def test_an_alias_that_is_not_there_is_an_error(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "nowhere"}
    for _ in range(2):
        with pytest.raises(InvalidCacheBackendError):
            hot.read(KEY)


def test_a_tier_that_forgets_at_once_is_found_out(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(REDIS)
    monkeypatch.setattr(hot.backend(), "get_many", lambda names: {})
    with pytest.raises(hot.WrongReply):
        hot.probe()


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
