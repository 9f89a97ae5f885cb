"""A Redis Cluster as the hot tier: a client whose connections to each node are pools of ours."""

from __future__ import annotations

from typing import Any, Final

# What has a client read from replicas.
FROM_REPLICAS: Final = {"read_from_replicas", "load_balancing_strategy"}


def is_cluster(client_class: Any) -> bool:
    """Whether it is a class of clients of a Cluster."""
    from redis.cluster import RedisCluster

    return isinstance(client_class, type) and issubclass(client_class, RedisCluster)


def join(theirs: type[Any], pool_class: type[Any], locations: list[str], options: Any) -> Any:
    """A client of the Cluster that has nodes at `locations`: each of them tells of the others.

    Raises what Redis raises.
    """
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode
    from redis.connection import parse_url
    from redis.maint_notifications import MaintNotificationsConfig
    from redis.retry import Retry

    class Cluster(theirs):  # type: ignore[misc]
        def mget(self, keys: Any, *args: Any) -> Any:
            """Also where they are on several nodes, as django-redis asks for them."""
            return self.mget_nonatomic(keys, *args)

    node_class: Any = ClusterNode
    nodes = [node_class(at["host"], at.get("port", 6379)) for at in map(parse_url, locations)]
    ours = {
        "startup_nodes": nodes,
        "connection_pool_class": pool_class,
        "retry": Retry(NoBackoff(), 0),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # (see `backends`)
    }
    # (replicas lag: what was invalidated would still be read there)
    theirs_too = {name: value for name, value in options.items() if name not in FROM_REPLICAS}
    return Cluster(**(theirs_too | ours))


def pools_of(cluster: Any, *, anew: bool = False) -> list[Any]:
    """The pools of the nodes that have the keys; `anew`: a node is asked which these are now.

    Raises what Redis raises.
    """
    if anew:
        cluster.nodes_manager.initialize()
    return [cluster.get_redis_connection(node).connection_pool for node in cluster.get_primaries()]
