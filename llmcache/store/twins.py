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
first location only, unless a client of another class spreads its keys over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from queue import Empty
from typing import Any, Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.utils.module_loading import import_string

from llmcache.keys import path_of
from llmcache.outcomes import Tier
from llmcache.store.breaker import TierResting, is_up

# For a connection, and for each reply.
SECONDS: Final = 0.1
# A process has at most so many connections unless told otherwise. Each is in use for a tiny part of
# a millisecond, and more threads take turns. If a thousand of them were to connect at once, the
# server would answer some too late.
CONNECTIONS: Final = 32
# So long a thread waits for its turn, unless the server is given a rest meanwhile.
TURN_SECONDS: Final = 1.0
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
OWN_FACTORY: Final = "llmcache.store.twins.connection_factory"
THEIR_FACTORY: Final = "LLMCACHE_CONNECTION_FACTORY"

Options = dict[str, Any]


class NoneIsFree(Exception):
    """Other threads of this process had all connections for too long."""


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
    for pool in getattr(twin, "llmcache_pools", ()):
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
            self.pool_cls = bounded_pool(self.pool_cls, options["LLMCACHE_POOLS"])

    return Factory(options)


def bounded_pool(theirs: type[Any], pools: list[Any]) -> type[Any]:
    """A pool of connections to Redis that keeps nobody waiting; each is added to `pools`."""
    pool_class: Any = _taking_turns(theirs)

    class BoundedPool(pool_class):  # type: ignore[misc]
        connection_class: Any
        connection_kwargs: Options

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Here the options of the URL are among the others.
            super().__init__(*args, **_bounded(pool_class, kwargs))
            # An option that is unknown is found out here. Later, each connection that cannot be
            # made takes a place in the pool along, and then all wait for a turn that never comes.
            self.connection_class(**self.connection_kwargs)
            pools.append(self)

        def get_connection(self, *args: Any, **kwargs: Any) -> Any:
            try:
                connection = super().get_connection(*args, **kwargs)
            except Exception as error:
                if isinstance(error.__context__, Empty):
                    raise NoneIsFree("all connections were in use") from error
                raise
            if not is_up(Tier.HOT):
                self.release(connection)
                raise TierResting(Tier.HOT)
            return connection

    return BoundedPool


def _taking_turns(theirs: type[Any]) -> type[Any]:
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
    # Two round trips less for each connection: telling the server what library this is.
    kwargs.setdefault("driver_info", None)
    if issubclass(pool_class, BlockingConnectionPool):
        kwargs["timeout"] = _at_most(TURN_SECONDS, kwargs.get("timeout"))
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

    twin: BaseCache = Twin(location, params | {"OPTIONS": options})
    return twin


def _first_of(location: Any) -> list[Any]:
    """As django-redis splits it."""
    return list(location.split(",") if isinstance(location, str) else location)[:1]


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
