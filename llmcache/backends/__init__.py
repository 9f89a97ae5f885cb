"""The cache backend for the hot tier on Redis: the whole of its settings is where the server is.

::

    CACHES["llmcache"] = {
        "BACKEND": "llmcache.backends.RedisCache",
        "LOCATION": "redis://127.0.0.1:6379/1",
    }

It is django-redis' backend with four differences. It moves bytes only: there is no serializer, so
nothing is ever unpickled. It waits briefly: for `SECONDS` for a connection and for each reply,
unless ``SOCKET_CONNECT_TIMEOUT`` and ``SOCKET_TIMEOUT`` in ``OPTIONS`` say otherwise, and tries
nothing twice. A read past the layers of the clients takes half as long, and needs no thread on an
event loop. And its owner is asked about each new connection before that is used.

Of several locations the first is used: the others would be replicas, and these lag. With
``"REDIS_CLIENT_CLASS": "redis.cluster.RedisCluster"`` they are nodes of a Cluster.
"""

from __future__ import annotations

import re
from asyncio import Future
from functools import cached_property
from typing import Any, Final
from weakref import proxy

from django_redis.cache import RedisCache as TheirCache  # type: ignore[import-untyped]
from django_redis.client import DefaultClient  # type: ignore[import-untyped]
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from llmcache.backends import connecting
from llmcache.backends.event_loop import Loops
from llmcache.backends.pool import Approval, Guard, Pool
from llmcache.backends.quick import ask
from llmcache.serializers import BytesSerializer

# For a connection, and for each reply.
SECONDS: Final = 0.1
# Before a new connection has answered its first question, it has answered so many others: who asks,
# for which database, and who the server is.
REPLIES: Final = 4
# As Redis reads it: the length of a name, and the name.
GET: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
# So many names are gone through by one question to Redis, which answers nobody else meanwhile.
NAMES_AT_ONCE: Final = 500
SPECIAL: Final = re.compile(r"([*?\[\]^\\-])")


class Client(DefaultClient):  # type: ignore[misc]
    """Bytes in, the same bytes out."""

    encode = staticmethod(BytesSerializer().dumps)
    decode = staticmethod(bytes)

    def __init__(self, server: Any, params: dict[str, Any], backend: RedisCache) -> None:
        # (no circle holds a socket)
        super().__init__(server, params, proxy(backend))
        self.connection_factory = backend.factory


class RedisCache(TheirCache):  # type: ignore[misc]
    """See the module. Raises what redis-py raises, and `NoneIsFree`."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        self._servers = list(server.split(",") if isinstance(server, str) else server)
        self._options = connecting.completed(params.get("OPTIONS") or {}, SECONDS)
        super().__init__(self._servers[:1], params | {"OPTIONS": self._options})
        self._client_cls = Client
        self._approval = Approval()

    @cached_property
    def factory(self) -> Any:
        """What makes the clients. Raises what is wrong with the settings."""
        return connecting.factory(self._options, self._servers, self._approval)

    @cached_property
    def _pool(self) -> Pool | None:
        """None: there is one for each node of a Cluster, which is asked for them."""
        if self.factory.is_of_cluster:
            return None
        pool: Pool = self.client.get_client().connection_pool
        return pool

    @cached_property
    def _loops(self) -> Loops | None:
        return None if self._pool is None else Loops(self._pool)

    def guarded_by(self, guard: Guard) -> None:
        """Have `guard` approve of each connection. Raises what is wrong with the settings."""
        self._approval.guard = guard
        self._pool  # noqa: B018 - it is made here, and not by several threads at once

    @cached_property
    def patience(self) -> float:
        """So many seconds a question takes at most, also on a new connection."""
        kwargs = self.factory.make_connection_params("") | self.factory.pool_cls_kwargs
        kwargs |= self._pool.connection_kwargs if self._pool else {}
        return float(kwargs["socket_connect_timeout"] + REPLIES * kwargs["socket_timeout"])

    def get(
        self, key: str, default: Any = None, version: int | None = None, client: Any = None
    ) -> Any:
        """What is under `key`, by one ``GET``: most of what a hit does is this question."""
        pool = self._pool
        if pool is None or client is not None:
            return super().get(key, default, version, client)
        name = self.make_key(key, version).encode()
        question = GET % (len(name), name)
        connection = pool.take()
        try:
            is_ready = (
                connection.is_connected and connection.approved is self._approval.guard.current
            )
            if not is_ready:
                pool.prepare(connection)
            try:
                reply = ask(connection, question)
            except RedisConnectionError:
                if not is_ready:
                    raise
                # The server has closed it while nobody used it, and then the others too.
                pool.disconnect()
                pool.prepare(connection)
                reply = ask(connection, question)
        finally:
            pool.put_back(connection)
        return default if reply is None else reply

    def ask_on_loop(self, key: str) -> Future[bytes | None] | None:
        """`get` as a future of the running loop; None where only a thread can do it."""
        loops = self._loops
        name = self.make_key(key).encode()
        return None if loops is None else loops.ask(GET % (len(name), name))

    def connect(self) -> None:
        """Open a connection to each server, or find one."""
        for pool in self.pools():
            pool.release(pool.get_connection())

    def disconnect(self) -> None:
        """Close the connections that are not in use."""
        for pool in [self._pool] if self._pool else self.factory.known_pools():
            pool.disconnect()

    def pools(self, *, anew: bool = False) -> list[Any]:
        """One for each server; `anew`: a Cluster is asked for its nodes once more."""
        if self._pool is not None:
            return [self._pool]
        return connecting.pools_of(self.client.get_client(), anew=anew)

    def remove_under(self, prefix: str) -> None:
        """Remove all whose key begins with `prefix`. What is put there meanwhile may stay."""
        pattern = SPECIAL.sub(r"\\\1", str(self.make_key(prefix))) + "*"
        # What moves to another node of a Cluster meanwhile is found there the second time.
        for _ in range(2 if self._pool is None else 1):
            for pool in self.pools(anew=True):
                remove_from(Redis(connection_pool=pool), pattern)


def remove_from(server: Any, pattern: str) -> None:
    cursor = None
    while cursor != 0:
        cursor, names = server.scan(cursor or 0, match=pattern, count=NAMES_AT_ONCE)
        # (a node of a Cluster takes one at a time)
        removing = server.pipeline(transaction=False)
        for name in names:
            removing.unlink(name)
        removing.execute()
