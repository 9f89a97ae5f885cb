"""Private twins of the cache backends: they speak to the same servers, and keep nobody waiting.

A project's own timeouts suit its other uses of Redis, or are those of the libraries: 5 seconds,
retries on top, 20 seconds for a place in a pool. A cache in front of every request may not take as
long. So the hot tier uses a backend of its own, made from the same entry of ``CACHES``: the same
keys and the same serializer, with connections that nobody else uses and that wait for at most
`SECONDS`. The alias itself stays as it is.

Backends of Django and django-redis that speak to Redis have a twin, and Django's that uses
pymemcache. Others are used as they are.

Of several locations the first is the one that both backends write to, and they read from the
others, its replicas. These lag: what was invalidated would still be read there. So a twin has the
first location only, unless a client of another class spreads its keys over all of them, or they are
nodes of a Cluster (see `clusters`).

Before a connection to Redis is used, it is checked that the epoch lists its server (see `epochs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from queue import Empty
from typing import Any, Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.utils.module_loading import import_string

from llmcache.breakers import CircuitOpen, NoneIsFree, Use, is_up
from llmcache.keys.forms import path_of
from llmcache.outcomes import Tier
from llmcache.store.hot import clusters, epochs

# For a connection, and for each reply.
SECONDS: Final = 0.1
# A process has at most so many connections unless told otherwise. Each is in use for a tiny part of
# a millisecond, and more threads take turns. If a thousand of them were to connect at once, the
# server would answer some too late.
CONNECTIONS: Final = 32
# So long a thread waits for its turn, unless the circuit is opened meanwhile.
POOL_SECONDS: Final = 1.0
# But a pool that refuses whoever finds no connection free is left to grow.
MANY_CONNECTIONS: Final = 10_000
# A server of memcached that fails is never given up in favour of another one, which would leave
# old copies behind, nor is it spared: the breaker does that.
ENDLESSLY: Final = 2**62

REDIS: Final = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS: Final = "django_redis.cache.RedisCache"
REDIS_CLIENT: Final = "django.core.cache.backends.redis.RedisCacheClient"
DEFAULT_CLIENT: Final = "django_redis.client.default.DefaultClient"
# Those of django-redis that read from replicas. (The second makes two locations of one that is a
# string, and takes a list as it is.)
ASK_REPLICAS: Final = {
    DEFAULT_CLIENT,
    "django_redis.client.sentinel.SentinelClient",
    "django_redis.client.herd.HerdClient",
}
OWN_FACTORY: Final = "llmcache.store.hot.backends.connection_factory"
THEIR_FACTORY: Final = "LLMCACHE_CONNECTION_FACTORY"

Options = dict[str, Any]


def twin_of(params: Mapping[str, Any]) -> BaseCache | None:
    """A backend of our own for this entry of ``CACHES``; None where the alias itself is used.

    Raises what importing or making the backend raises.
    """
    backend = import_string(params["BACKEND"])
    make = next((MAKERS[name] for name in map(path_of, backend.__mro__) if name in MAKERS), None)
    if make is None:
        return None
    rest = {name: value for name, value in params.items() if name not in {"BACKEND", "LOCATION"}}
    options = dict(params.get("OPTIONS") or {})
    return make(backend, params.get("LOCATION", ""), rest, options)


def try_out(params: Mapping[str, Any]) -> None:
    """Make a twin on Redis, and what it would speak through; no server is asked.

    Raises what is wrong with this entry of ``CACHES``.
    """
    twin: Any = twin_of(params)
    if is_cluster(twin):
        twin.client.connection_factory.try_out()
    else:
        _make_client(twin)


def is_cluster(cache: BaseCache) -> bool:
    """Whether it is a twin that speaks to a Redis Cluster."""
    twin: Any = cache
    return hasattr(twin, "llmcache_pools") and bool(_factory(twin) and _factory(twin).is_of_cluster)


def is_checked(cache: BaseCache) -> bool:
    """Whether it is a twin on Redis whose connections are checked."""
    return is_cluster(cache) or bool(pools_of(cache))


def pools_of(cache: BaseCache, *, anew: bool = False) -> list[Any]:
    """The pools of a twin on Redis, one for each server; none of other backends.

    `anew`: a Cluster is asked for its nodes once more. Raises what Redis raises.
    """
    twin: Any = cache
    if not hasattr(twin, "llmcache_pools"):
        return []
    if is_cluster(twin):
        return clusters.pools_of(twin.client.get_client(write=True), anew=anew)
    if not twin.llmcache_pools:
        _make_client(twin)
    return list(twin.llmcache_pools)


def key_maker(cache: BaseCache) -> Callable[[str], Any]:
    """What makes the server's name of a key."""
    twin: Any = cache
    is_django_redis = DJANGO_REDIS in map(path_of, type(twin).__mro__)
    make: Callable[[str], Any] = twin.client.make_key if is_django_redis else twin.make_key
    return make


def connect(cache: BaseCache | None) -> None:
    """Open a connection to each server of Redis, so that the epoch lists it."""
    for pool in pools_of(cache) if cache is not None else ():
        pool.release(pool.get_connection())


def _make_client(twin: Any) -> None:
    if DJANGO_REDIS in map(path_of, type(twin).__mro__):
        layers = twin.client
        client_class = type(layers)
    else:
        layers = twin._cache  # noqa: SLF001
        client_class = type(layers).__mro__[1]
    # (others may need a key to tell which server it is for)
    if path_of(client_class) in {REDIS_CLIENT, *ASK_REPLICAS}:
        layers.get_client(write=True)


def close(twin: BaseCache) -> None:
    """Close the connections that are not in use."""
    if isinstance(twin, PyMemcacheCache):
        twin.close()
    pools = list(getattr(twin, "llmcache_pools", ()))
    if is_cluster(twin):
        pools += _factory(twin).pools()
    for pool in pools:
        pool.disconnect(inuse_connections=False)


def connection_factory(options: Options) -> Any:
    """What makes the connections of a twin of django-redis, which names it by this path.

    django-redis has one pool for all aliases with the same URL, whatever their timeouts.
    """
    from django_redis import pool  # type: ignore[import-untyped]

    path = options.get(THEIR_FACTORY)
    theirs: Any = import_string(path) if path else pool.ConnectionFactory

    class Factory(theirs):  # type: ignore[misc]
        _pools: dict[str, Any] = {}
        pool_cls: Any

        def __init__(self, options: Options) -> None:
            super().__init__(options)
            self.is_of_cluster = clusters.is_cluster(getattr(self, "redis_client_cls", None))
            # (the nodes of a Cluster come and go, and their pools with them)
            pools = None if self.is_of_cluster else options["LLMCACHE_POOLS"]
            self.pool_cls = bounded_pool(self.pool_cls, pools)
            self._joined: list[Any] = []

        def connect(self, url: str) -> Any:
            if not self.is_of_cluster:
                return super().connect(url)
            more = self.make_connection_params(url) | self.pool_cls_kwargs
            cluster = clusters.join(
                self.redis_client_cls,
                self.pool_cls,
                options["LLMCACHE_LOCATIONS"],
                more | self.redis_client_cls_kwargs,
            )
            self._joined.append(cluster)
            return cluster

        def try_out(self) -> None:
            for url in options["LLMCACHE_LOCATIONS"]:
                self.get_connection_pool(self.make_connection_params(url))

        def pools(self) -> list[Any]:
            return [pool for cluster in self._joined for pool in clusters.pools_of(cluster)]

    return Factory(options)


def _factory(twin: Any) -> Any:
    """Of our own, where it is a twin of django-redis."""
    return getattr(getattr(twin, "client", None), "connection_factory", None)


def bounded_pool(theirs: type[Any], pools: list[Any] | None) -> type[Any]:
    """A pool of connections to Redis that keeps nobody waiting; each is added to `pools`."""
    pool_class: Any = _blocking(theirs)

    class BoundedPool(pool_class):  # type: ignore[misc]
        connection_class: Any
        connection_kwargs: Options

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Here the options of the URL are among the others.
            super().__init__(*args, **_bounded(pool_class, kwargs))
            # An option that is unknown is found out here. Later, each connection that cannot be
            # made takes a place in the pool along, and then all wait for a turn that never comes.
            self.connection_class(**self.connection_kwargs)
            self.connection_class = checked(self.connection_class)
            if pools is not None:
                pools.append(self)

        def get_connection(self, *args: Any, **kwargs: Any) -> Any:
            try:
                connection = super().get_connection(*args, **kwargs)
            except Exception as error:
                if isinstance(error.__context__, Empty):
                    raise NoneIsFree("all connections were in use") from error
                raise
            try:
                if not any(is_up(Tier.HOT, use) for use in Use):
                    raise CircuitOpen(Tier.HOT)
                if not epochs.is_checked(connection):  # another epoch has begun
                    connection.check_epoch()
            except BaseException:
                self.release(connection)
                raise
            return connection

    return BoundedPool


@lru_cache(maxsize=64)
def checked(theirs: type[Any]) -> type[Any]:
    """A class of connections, each of which is checked before it is used (see `epochs.check`)."""

    class Checked(theirs):  # type: ignore[misc]
        llmcache_epoch: Any = None

        def on_connect_check_health(self, *args: Any, **kwargs: Any) -> None:
            super().on_connect_check_health(*args, **kwargs)
            self.check_epoch()

        def check_epoch(self) -> None:
            try:
                epochs.check(self)
            except BaseException:
                self.disconnect()
                raise

    return Checked


def _blocking(theirs: type[Any]) -> type[Any]:
    """The plain pool refuses whoever finds no connection free; this one has him wait a moment."""
    from redis import BlockingConnectionPool, ConnectionPool

    return BlockingConnectionPool if theirs is ConnectionPool else theirs


def _bounded(pool_class: type[Any], kwargs: Options) -> Options:
    from redis import BlockingConnectionPool
    from redis.maint_notifications import MaintNotificationsConfig

    kwargs |= {
        "socket_timeout": _at_most(SECONDS, kwargs.get("socket_timeout")),
        "socket_connect_timeout": _at_most(SECONDS, kwargs.get("socket_connect_timeout")),
        "retry": None,
        "retry_on_timeout": False,
        "retry_on_error": [],
        # They would make the timeouts longer while a server is moved.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    # Copies in the client would outlive an invalidation.
    kwargs |= {"cache": None, "cache_config": None}
    # Two round trips less for each connection: telling the server what library this is.
    kwargs.setdefault("driver_info", None)
    if issubclass(pool_class, BlockingConnectionPool):
        kwargs["timeout"] = _at_most(POOL_SECONDS, kwargs.get("timeout"))
        kwargs.setdefault("max_connections", CONNECTIONS)
    else:
        kwargs.setdefault("max_connections", MANY_CONNECTIONS)
    return kwargs


def _at_most(seconds: float, theirs: float | None) -> float:
    return min(seconds, theirs) if theirs else seconds


def _redis(backend: Any, location: Any, params: Options, options: Options) -> BaseCache:
    from django.core.cache.backends.redis import RedisCacheClient
    from redis import ConnectionPool

    pools: list[Any] = []
    theirs = options.get("pool_class") or ConnectionPool
    pool_class = import_string(theirs) if isinstance(theirs, str) else theirs
    options["pool_class"] = bounded_pool(pool_class, pools)

    class Twin(backend):  # type: ignore[misc]
        llmcache_pools = pools
        _class: Any
        _servers: Any

        def __init__(self, server: Any, params: Options) -> None:
            super().__init__(server, params)
            if self._class is RedisCacheClient:
                self._servers = self._servers[:1]
            self._class = _lasting(self._class)

    twin: BaseCache = Twin(location, params | {"OPTIONS": options})
    return twin


def _lasting(client_class: type[Any]) -> type[Any]:
    """Django makes a client for each command, which takes longer than the command."""

    class Client(client_class):  # type: ignore[misc]
        _client: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._client = cache(self._client)

    return Client


def _django_redis(backend: Any, location: Any, params: Options, options: Options) -> BaseCache:
    from django.conf import settings

    pools: list[Any] = []
    options[THEIR_FACTORY] = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", None
    )
    options["CONNECTION_FACTORY"] = OWN_FACTORY
    options["LLMCACHE_POOLS"] = pools
    options["IGNORE_EXCEPTIONS"] = False
    if "SENTINELS" in options:
        options["SENTINEL_KWARGS"] = _bounded_sentinels(options.get("SENTINEL_KWARGS") or {})

    class Twin(backend):  # type: ignore[misc]
        llmcache_pools = pools
        _client_cls: Any
        _server: Any

        def __init__(self, server: Any, params: Options) -> None:
            super().__init__(server, params)
            if path_of(self._client_cls) in ASK_REPLICAS:
                self._server = _first_of(self._server)

    options["LLMCACHE_LOCATIONS"] = _each_of(location)
    twin: BaseCache = Twin(location, params | {"OPTIONS": options})
    return twin


def _first_of(location: Any) -> list[Any]:
    return _each_of(location)[:1]


def _each_of(location: Any) -> list[Any]:
    """As django-redis splits it."""
    return list(location.split(",") if isinstance(location, str) else location)


def _bounded_sentinels(kwargs: Options) -> Options:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return kwargs | {
        "socket_timeout": _at_most(SECONDS, kwargs.get("socket_timeout")),
        "socket_connect_timeout": _at_most(SECONDS, kwargs.get("socket_connect_timeout")),
        "retry": Retry(NoBackoff(), 0),
    }


def _pymemcache(backend: Any, location: Any, params: Options, options: Options) -> BaseCache:
    options |= {
        "timeout": _at_most(SECONDS, options.get("timeout")),
        "connect_timeout": _at_most(SECONDS, options.get("connect_timeout")),
        "ignore_exc": False,
        "retry_attempts": ENDLESSLY,
        "retry_timeout": -1,
        "use_pooling": True,  # or two threads would read each other's replies
    }
    twin: BaseCache = backend(location, params | {"OPTIONS": options})
    return twin


MAKERS: Final[dict[str, Callable[[Any, Any, Options, Options], BaseCache]]] = {
    DJANGO_REDIS: _django_redis,
    REDIS: _redis,
    path_of(PyMemcacheCache): _pymemcache,
}
