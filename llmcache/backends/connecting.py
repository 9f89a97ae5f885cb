"""How django-redis is told of our pools: for one server, the Sentinels' primary, or a Cluster."""

from __future__ import annotations

from typing import Any, Final

from django_redis.pool import (  # type: ignore[import-untyped]
    ConnectionFactory,
    SentinelConnectionFactory,
)
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from llmcache.backends.pool import Approval, Pool, SentinelPool

Options = dict[str, Any]

NO_RETRY: Final = Retry(NoBackoff(), 0)
# What has a client read from replicas: these lag.
FROM_REPLICAS: Final = {"read_from_replicas", "load_balancing_strategy"}


def completed(options: Options, seconds: float) -> Options:
    """The options with what they leave out, and without what is not to be chosen."""
    timeouts = {
        name: options.get(name) or seconds for name in ("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")
    }
    sentinels = {
        "socket_timeout": timeouts["SOCKET_TIMEOUT"],
        "socket_connect_timeout": timeouts["SOCKET_CONNECT_TIMEOUT"],
        **(options.get("SENTINEL_KWARGS") or {}),
        "retry": NO_RETRY,
    }
    return {
        **options,
        **timeouts,
        "SENTINEL_KWARGS": sentinels,
        "SERIALIZER": "llmcache.serializers.BytesSerializer",
        "COMPRESSOR": "django_redis.compressors.identity.IdentityCompressor",
        # (with it, an invalidation that failed would look done)
        "IGNORE_EXCEPTIONS": False,
    }


def factory(options: Options, servers: list[str], approval: Approval) -> Any:
    """What makes the clients of a backend, with pools of its own.

    django-redis has one pool for all aliases with the same URL, whatever their timeouts.
    """
    theirs: Any = SentinelConnectionFactory if "SENTINELS" in options else ConnectionFactory
    pool: Any = SentinelPool if "SENTINELS" in options else Pool

    class Factory(theirs):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(options)
            self._pools: dict[str, Any] = {}
            self.pool_cls = type(pool.__name__, (pool,), {"approval": approval})
            self.is_of_cluster = issubclass(self.redis_client_cls, RedisCluster)
            self._cluster: Any = None

        def connect(self, url: str) -> Any:
            if not self.is_of_cluster:
                return super().connect(url)
            kwargs = self.make_connection_params(url) | self.pool_cls_kwargs
            self._cluster = join(
                self.redis_client_cls,
                self.pool_cls,
                servers,
                kwargs | self.redis_client_cls_kwargs,
            )
            return self._cluster

        def known_pools(self) -> list[Any]:
            return pools_of(self._cluster) if self._cluster else []

    made = Factory()
    for url in servers if made.is_of_cluster else ():  # (errors are told before they are asked)
        made.get_connection_pool(made.make_connection_params(url))
    return made


def join(theirs: type[Any], pool_class: type[Any], urls: list[str], options: Options) -> Any:
    """A client of the Cluster that has nodes at `urls`: each of them tells of the others.

    Raises what Redis raises.
    """

    class Cluster(theirs):  # type: ignore[misc]
        def mget(self, keys: Any, *args: Any) -> Any:
            """Also where they are on several nodes, as django-redis asks for them."""
            return self.mget_nonatomic(keys, *args)

    node_class: Any = ClusterNode
    ours = {
        "startup_nodes": [
            node_class(at["host"], at.get("port", 6379)) for at in map(parse_url, urls)
        ],
        "connection_pool_class": pool_class,
        "retry": NO_RETRY,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    theirs_too = {name: value for name, value in options.items() if name not in FROM_REPLICAS}
    return Cluster(**(theirs_too | ours))


def pools_of(cluster: Any, *, anew: bool = False) -> list[Any]:
    """The pools of the nodes that have the keys; `anew`: a node is asked which these are now.

    Raises what Redis raises.
    """
    if anew:
        cluster.nodes_manager.initialize()
    return [cluster.get_redis_connection(node).connection_pool for node in cluster.get_primaries()]
