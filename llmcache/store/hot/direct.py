"""A ``GET`` on Redis past the layers of its clients: most of what a hit does is this one question.

On the way through Django's backend, redis-py's client and its pool, a ``GET`` takes longer than
from the socket and back. So connections of the pool are kept at hand between two questions (see
`getting`). It is still redis-py that opens them: TLS, passwords, the number of the database.

Only where nothing unusual was asked for: one server, the backend of Django or of django-redis and
the client of redis-py as they are, the serializer of llmcache, names that end with the key, and a
pool without a bound that connections at hand could use up. Everything else goes through the
backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends.base import BaseCache, default_key_func

from llmcache.keys.forms import path_of
from llmcache.serializers import BytesSerializer
from llmcache.store.hot.backends import CONNECTIONS, DEFAULT_CLIENT, DJANGO_REDIS, REDIS, is_cluster

if TYPE_CHECKING:
    from redis import Redis

    from llmcache.store.hot.getting import Direct

IDENTITY: Final = "django_redis.compressors.identity.IdentityCompressor"


def direct_to(cache: BaseCache) -> Direct | None:
    """The way past the layers of a twin (see `backends`); None where all of them are needed."""
    backend = type(cache).__mro__[1]
    make = MAKERS.get(path_of(backend))
    try:
        return make(cache) if make else None
    except Exception:  # noqa: BLE001 - what is wrong with it is told when the backend is used
        return None


def _to_django(cache: Any) -> Direct | None:
    from redis import Redis

    layers = cache._cache  # noqa: SLF001
    if type(layers._serializer) is not BytesSerializer or len(layers._servers) != 1:  # noqa: SLF001
        return None
    client = layers.get_client()
    return _through(client, cache, cache.make_key) if type(client) is Redis else None


def _to_django_redis(cache: Any) -> Direct | None:
    from redis import Redis

    layers = cache.client
    is_plain = (
        path_of(type(layers)) == DEFAULT_CLIENT
        and type(layers._serializer) is BytesSerializer  # noqa: SLF001
        and path_of(type(layers._compressor)) == IDENTITY  # noqa: SLF001
        and len(layers._server) == 1  # noqa: SLF001
        and not is_cluster(cache)
    )
    client = layers.get_client(write=False) if is_plain else None
    return _through(client, cache, layers.make_key) if type(client) is Redis else None


def _through(client: Redis, cache: BaseCache, make_key: Callable[[str], Any]) -> Direct | None:
    from redis import BlockingConnectionPool

    from llmcache.store.hot.getting import Direct

    pool = client.connection_pool
    is_plain = (
        cache.key_func is default_key_func
        # (of ours, see `backends.bounded_pool`)
        and type(pool).__mro__[1] is BlockingConnectionPool
        and pool.max_connections == CONNECTIONS
        # (new credentials are given to connections that come back to the pool)
        and pool.connection_kwargs.get("credential_provider") is None
    )
    return Direct(pool, str(make_key("")).encode()) if is_plain else None


MAKERS: Final[dict[str, Callable[[Any], Direct | None]]] = {
    DJANGO_REDIS: _to_django_redis,
    REDIS: _to_django,
}
