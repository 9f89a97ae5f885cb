"""A Redis Cluster as the hot tier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.core.checks import run_checks
from django_redis.pool import ConnectionFactory  # type: ignore[import-untyped]
from redis import Redis
from redis.cluster import RedisCluster

import llmcache
from llmcache import breakers, store
from llmcache.models import CacheEntry
from llmcache.outcomes import Tier
from llmcache.store.hot import epochs
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from project.standin.server import StandIn
from tests.support.backends import DJANGO_REDIS, OWN, use
from tests.support.clients import CALL, make_client
from tests.support.entries import draft
from tests.support.servers import ClusterNode, join_cluster, require
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.django_db(transaction=True)]

# (enough that each node has some)
KEYS = [f"{number:064x}" for number in range(30)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[ClusterNode]]:
    """Three nodes, each with a part of the keys."""
    require(ClusterNode)
    with ExitStack() as stack:
        nodes = [stack.enter_context(ClusterNode()) for _ in range(3)]
        join_cluster(nodes)
        wait_until_it_is_well(nodes)
        yield nodes


@pytest.fixture
def nodes(cluster: list[ClusterNode], settings: Any) -> list[ClusterNode]:
    """The same, empty and well, as the hot tier."""
    for node in cluster:
        node.start()
    wait_until_it_is_well(cluster)
    for node in cluster:
        operator(node).flushall()
        operator(node).save()
    use_cluster(settings, cluster)
    return cluster


def use_cluster(settings: Any, nodes: list[ClusterNode]) -> None:
    urls = ",".join(node.url for node in nodes)
    use(settings, OWN, urls, REDIS_CLIENT_CLASS="redis.cluster.RedisCluster")


def operator(node: ClusterNode) -> Any:
    return Redis(port=node.port)


def wait_until_it_is_well(nodes: list[ClusterNode]) -> None:
    def is_well() -> bool:
        return all(operator(node).cluster("info")["cluster_state"] == "ok" for node in nodes)

    wait_until(is_well, 20)


def fill() -> None:
    for key in KEYS:
        assert store.save(draft(key), late_answers.generation()) is None
    # (each node that is met for the first time has begun a new epoch)
    for key in KEYS:
        store.lookup(key)
    wait_until(lambda: set(hot.read_many(KEYS)) == set(KEYS))


def served() -> dict[str, Tier]:
    found = {key: store.lookup(key) for key in KEYS}
    return {key: each.tier for key, each in found.items() if isinstance(each, Found)}


INVALIDATIONS: dict[str, Callable[[], llmcache.Invalidated]] = {
    "keys": lambda: llmcache.invalidate(keys=KEYS),
    "namespace": lambda: llmcache.invalidate(namespace=draft().namespace),
    "everything": lambda: llmcache.invalidate(everything=True),
}


def test_all_nodes_hold_copies_that_are_served(nodes: list[ClusterNode]) -> None:
    fill()
    assert served() == dict.fromkeys(KEYS, Tier.HOT)
    assert all(operator(node).dbsize() > 0 for node in nodes)
    assert sum(operator(node).dbsize() for node in nodes) >= len(KEYS)
    assert set(epochs.ensure().servers) == {f"127.0.0.1:{node.port}" for node in nodes}


@pytest.mark.parametrize("by", INVALIDATIONS)
def test_what_is_removed_does_not_come_back_with_a_node(nodes: list[ClusterNode], by: str) -> None:
    fill()
    for node in nodes:
        operator(node).save()
    result = INVALIDATIONS[by]()
    assert (result.entries, result.pending) == (len(KEYS), ())
    for node in nodes:
        node.kill()
        node.start()
    wait_until_it_is_well(nodes)
    assert all(operator(node).dbsize() > 0 for node in nodes)
    assert served() == {}
    breakers.start_anew()
    assert served() == {}
    assert hot.read_many(KEYS) == {}


def test_everything_reaches_copies_without_rows_on_each_node(nodes: list[ClusterNode]) -> None:
    fill()
    operator_of_all = RedisCluster.from_url(nodes[0].url)
    operator_of_all.set("theirs", "1")
    CacheEntry.objects.all()._raw_delete("default")
    assert served() == dict.fromkeys(KEYS, Tier.HOT)
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending) == (0, ())
    assert served() == {}
    assert sum(operator(node).dbsize() for node in nodes) == 1
    assert operator_of_all.get("theirs") == b"1"


def test_what_moves_to_another_node_meanwhile_is_removed(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a node that is not looked at yet, to one that was."""
    fill()
    CacheEntry.objects.all()._raw_delete("default")
    cache: Any = hot.backend()
    first, *_, last = cache.pools()
    asked: list[Any] = []
    source, target = (Redis(connection_pool=pool) for pool in (last, first))
    name = source.scan(count=1000)[1][0]

    def scan(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = their_scan(self, *args, **kwargs)
        asked.append(self.connection_pool)
        if len(asked) == 1:
            move(name, source, target)
        return found

    their_scan = Redis.scan
    monkeypatch.setattr(Redis, "scan", scan)
    assert llmcache.invalidate(everything=True).pending == ()
    assert asked[0] is first
    monkeypatch.undo()
    assert [operator(node).dbsize() for node in nodes] == [0, 0, 0]


def move(name: bytes | str, source: Any, target: Any) -> None:
    slot = source.cluster("keyslot", name)
    names = source.cluster("getkeysinslot", slot, 100)
    target_id, source_id = (each.cluster("myid").decode() for each in (target, source))
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
    kwargs = target.connection_pool.connection_kwargs
    source.migrate(kwargs["host"], kwargs["port"], names, 0, 1000)
    for each in (target, source):
        each.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)


def test_a_replica_that_takes_over_without_the_last_removals(settings: Any) -> None:
    require(ClusterNode)
    with ClusterNode() as primary, ClusterNode() as replica:
        operator(primary).execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        meet = ("CLUSTER MEET", "127.0.0.1", primary.port, primary.bus_port)
        operator(replica).execute_command(*meet)
        primary_id = operator(primary).cluster("myid").decode()
        wait_until(lambda: len(operator(replica).cluster("nodes")) == 2, 20)
        wait_until_it_is_well([primary, replica])
        operator(replica).execute_command("CLUSTER REPLICATE", primary_id)
        wait_until(lambda: len(operator(primary).execute_command("CLUSTER SLOTS")[0]) == 4, 20)
        use_cluster(settings, [primary])
        fill()
        wait_until(lambda: operator(replica).dbsize() >= len(KEYS))
        operator(replica).save()
        replica.kill()
        assert llmcache.invalidate(keys=KEYS).pending == ()
        primary.kill()
        replica.start()
        operator(replica).execute_command("CLUSTER FAILOVER", "TAKEOVER")
        wait_until(lambda: operator(replica).cluster("info")["cluster_state"] == "ok", 20)
        assert operator(replica).dbsize() >= len(KEYS)
        assert served() == {}
        breakers.start_anew()
        assert served() == {}
        assert store.save(draft(KEYS[0]), late_answers.generation()) is None
        wait_until(lambda: served() == {KEYS[0]: Tier.HOT}, 20)


def test_a_node_that_is_down_delays_nobody(nodes: list[ClusterNode], model: StandIn) -> None:
    fill()
    client = make_client(model)
    client.create(**CALL)
    nodes[0].pause()
    try:
        started = time.monotonic()
        assert set(served()) == set(KEYS)
        client.create(**CALL)
        assert time.monotonic() - started < 5
        assert len(model.calls) == 1
        result = llmcache.invalidate(everything=True)
        assert result.pending == ("hot",)
        assert served() == {}
    finally:
        nodes[0].resume()


class OwnFactory(ConnectionFactory):  # type: ignore[misc]
    """As projects have it that gave one to django-redis."""

    def connect(self, url: str) -> Any:
        return RedisCluster.from_url(url)


def test_a_client_that_nobody_told_of_could_bring_copies_back(
    nodes: list[ClusterNode], settings: Any
) -> None:
    use(settings, DJANGO_REDIS, nodes[0].url, CONNECTION_FACTORY=f"{__name__}.OwnFactory")
    for key in KEYS:
        assert store.save(draft(key), late_answers.generation()) is None
    assert served() == dict.fromkeys(KEYS, Tier.HOT)
    for key in KEYS:
        result = llmcache.invalidate(keys=[key])
        assert (result.entries, result.pending) == (1, ("hot",))
    assert served() == {}
    assert llmcache.invalidate(everything=True).pending == ("hot",)


def test_the_check_asks_no_node(settings: Any) -> None:
    use(
        settings,
        OWN,
        "redis://192.0.2.1:7000",
        REDIS_CLIENT_CLASS="redis.cluster.RedisCluster",
    )
    assert not [each for each in run_checks() if each.id == "llmcache.E007"]
    use(
        settings,
        OWN,
        "redis://192.0.2.1:7000?unknown=1",
        REDIS_CLIENT_CLASS="redis.cluster.RedisCluster",
    )
    assert [each.id for each in run_checks() if each.id == "llmcache.E007"] == ["llmcache.E007"]
