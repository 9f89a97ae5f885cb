"""Servers that come back with what was removed: from a snapshot, or as a replica that lags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction
from redis import Redis

import llmcache
from llmcache import breakers, store
from llmcache.models import Epoch
from llmcache.outcomes import Tier
from llmcache.store.hot import aliases, epochs
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import late_answers
from project.standin.server import StandIn
from tests.support.backends import DJANGO_REDIS, OWN, REDIS, unreachable, use
from tests.support.clients import CALL, make_client
from tests.support.entries import draft
from tests.support.returns import KEYS, fill, tier
from tests.support.servers import RedisServer, require
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.django_db(transaction=True)]


class Lasting(RedisServer):
    """One that comes back with what it had when it was told to `save`."""

    def restart(self) -> None:
        self.kill()
        self.start()

    def operator(self) -> Any:
        return Redis.from_url(self.url)


@pytest.fixture
def server(settings: Any) -> Iterator[Lasting]:
    """The hot tier on a server of one's own."""
    require(RedisServer)
    with Lasting("--save", "3600 1000000") as redis:
        use(settings, OWN, redis.url)
        yield redis


async def atier(key: str = KEYS[0]) -> Tier | None:
    found = await store.alookup(key)
    return found.tier if isinstance(found, Found) else None


INVALIDATIONS: dict[str, Callable[[], llmcache.Invalidated]] = {
    "key": lambda: llmcache.invalidate(keys=KEYS),
    "namespace": lambda: llmcache.invalidate(namespace=draft().namespace),
    "everything": lambda: llmcache.invalidate(everything=True),
}


@pytest.mark.parametrize("by", INVALIDATIONS)
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at once"])
def test_a_snapshot_brings_nothing_back(server: Lasting, by: str, at_once: bool) -> None:
    fill()
    server.operator().save()
    assert INVALIDATIONS[by]().pending == ()
    server.restart()
    assert server.operator().dbsize() >= len(KEYS)
    if not at_once:
        time.sleep(1.5)
    assert [tier(key) for key in KEYS] == [None] * len(KEYS)
    assert hot.read_many(KEYS) == {}
    found = store.lookup_many(KEYS)
    assert not any(isinstance(each, Found) for each in found.values())


def test_nor_to_a_coroutine(server: Lasting) -> None:
    async def look() -> list[Tier | None]:
        before = [await atier() for _ in range(2)]
        server.operator().save()
        await llmcache.ainvalidate(keys=KEYS)
        server.restart()
        return [*before, *[await atier() for _ in range(3)]]

    fill()
    assert asyncio.run(look()) == [Tier.HOT, Tier.HOT, None, None, None]


@pytest.mark.usefixtures("server")
def test_a_connection_of_an_earlier_epoch_is_not_used_on_a_loop() -> None:
    async def look() -> list[Tier | None]:
        before = await atier()
        epochs.learn({"another:6379": "a server that came back"})
        return [before, await atier()]

    fill()
    assert asyncio.run(look()) == [Tier.HOT, Tier.DURABLE]


def test_what_is_stored_is_served_from_copies_again(server: Lasting) -> None:
    fill()
    server.operator().save()
    server.restart()
    assert tier() is Tier.DURABLE
    wait_until(lambda: tier() is Tier.HOT)


def test_a_client_asks_the_model_again(server: Lasting, model: StandIn) -> None:
    client = make_client(model)
    client.create(**CALL)
    wait_until(lambda: bool(hot.read_many([llmcache.key_for(client, **CALL)])))
    server.operator().save()
    llmcache.invalidate(keys=[llmcache.key_for(client, **CALL)])
    server.restart()
    [result] = llmcache.create_many(client, [CALL])
    assert result.call.outcome == "miss"
    assert len(model.calls) == 2


def test_another_process_that_knows_the_old_epoch_reads_no_old_copy(server: Lasting) -> None:
    """It has not heard of the restart, nor of the new epoch that this process has begun."""
    fill()
    server.operator().save()
    old, connections_of_old = epochs.current, hot.backend()
    assert tier() is Tier.HOT
    llmcache.invalidate(keys=KEYS)
    server.restart()
    assert tier() is None
    new = epochs.current
    assert old is not None
    assert new is not None
    assert old.name != new.name
    epochs.current = old  # (as it is in that process, whose connections have broken)
    aliases._aliases.clear()
    assert hot.backend() is not connections_of_old
    assert tier() is None
    assert epochs.current.name == new.name


def test_processes_that_find_it_at_once_agree(server: Lasting) -> None:
    servers = [{f"host-{number}:6379": str(number)} for number in range(8)]

    def learn(listed: dict[str, str]) -> str:
        found = epochs._start(listed)
        connections.close_all()
        return found.name

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(learn, servers))
        names = set(threads.map(learn, servers))
    row = Epoch.objects.get()
    assert names == {row.name}
    assert len(row.servers) == len(servers)
    assert len(row.earlier) == len(servers) - 1


def test_an_invalidation_reaches_the_copies_of_who_is_late(server: Lasting) -> None:
    """A process that has not learnt of the new epoch reads copies of the old one, elsewhere."""
    fill()
    old = epochs.ensure()
    epochs.learn({"another:6379": "a server that came back"})
    assert epochs.ensure().name != old.name
    llmcache.invalidate(keys=KEYS)
    cache = hot.backend()
    assert cache is not None
    assert cache.get_many([old.copies + key for key in KEYS]) == {}


def test_who_is_late_makes_no_copies(server: Lasting) -> None:
    fill()
    hot.delete(KEYS)
    old = epochs.ensure()
    epochs.learn({"another:6379": "a server that came back"})
    epochs.current = old
    assert tier() is Tier.DURABLE
    cache = hot.backend()
    assert cache is not None
    assert cache.get_many([old.copies + key for key in KEYS]) == {}
    assert epochs.ensure().name != old.name
    assert [tier(), tier()] == [Tier.DURABLE, Tier.HOT]


def test_a_row_that_is_lost_is_made_anew(server: Lasting) -> None:
    fill()
    old = epochs.ensure()
    Epoch.objects.all().delete()
    llmcache.invalidate(keys=KEYS)
    assert hot.read_many(KEYS) == {}
    fill_again = [store.save(draft(key), late_answers.generation()) for key in KEYS]
    assert fill_again == [None] * len(KEYS)
    wait_until(lambda: tier() is Tier.HOT)
    assert Epoch.objects.get().name != old.name


def test_a_replica_that_takes_over_without_the_last_removals(settings: Any) -> None:
    require(RedisServer)
    with Lasting() as first, Lasting("--replicaof", "127.0.0.1", str(first.port)) as second:
        use(settings, OWN, first.url)
        fill()
        wait_until(lambda: second.operator().dbsize() >= len(KEYS))
        second.operator().replicaof("no", "one")
        llmcache.invalidate(keys=KEYS)
        # The address leads to the replica now.
        port = first.port
        first.kill()
        second.operator().config_set("port", port)
        assert Redis(port=port).dbsize() >= len(KEYS)
        assert [tier(key) for key in KEYS] == [None] * len(KEYS)


def test_while_the_database_is_down_no_copy_is_trusted(server: Lasting, settings: Any) -> None:
    fill()
    server.operator().save()
    llmcache.invalidate(keys=KEYS)
    server.restart()
    with unreachable("default"):
        assert tier() is None
    assert tier() is None


def test_within_a_transaction_nobody_waits_for_a_new_epoch(server: Lasting) -> None:
    """On SQLite the caller is the one writer: no row can be written for it meanwhile."""
    fill()
    server.operator().save()
    llmcache.invalidate(keys=KEYS)
    server.restart()
    with transaction.atomic():
        Epoch.objects.filter(pk=0).update(name="")
        started = time.monotonic()
        assert tier() is None
        assert time.monotonic() - started < 1
    assert tier() is None


def test_a_server_that_does_not_say_who_it_is(settings: Any) -> None:
    """It could come back unnoticed: whatever is invalidated is pending for as long as a copy."""
    require(RedisServer)
    with RedisServer("--rename-command", "INFO", "") as redis:
        use(settings, OWN, redis.url)
        fill()
        assert tier() is Tier.HOT
        result = llmcache.invalidate(keys=KEYS[:1])
        assert (result.entries, result.pending) == (1, ("hot",))
        assert result.pending_until is not None
        assert [tier(key) for key in KEYS] == [None, Tier.HOT, Tier.HOT]
        assert breakers.is_up(Tier.HOT)


@pytest.mark.parametrize("backend_path", [REDIS, DJANGO_REDIS], ids=["redis", "django-redis"])
def test_another_library_could_speak_to_anybody(settings: Any, backend_path: str) -> None:
    require(RedisServer)
    with RedisServer() as redis:
        use(settings, backend_path, redis.url)
        fill()
        assert tier() is Tier.HOT
        assert llmcache.invalidate(keys=KEYS).pending == ("hot",)
        assert llmcache.invalidate(everything=True).pending == ("hot",)


def test_a_hit_costs_no_second_question(server: Lasting) -> None:
    fill()
    tier()
    operator = server.operator()
    operator.config_resetstat()
    assert [tier() for _ in range(5)] == [Tier.HOT] * 5
    calls = {name: stats["calls"] for name, stats in operator.info("commandstats").items()}
    calls.pop("cmdstat_config|resetstat", None)
    assert calls == {"cmdstat_get": 5}


def test_a_connection_that_was_not_checked_is_closed(
    server: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache: Any = hot.backend()
    [pool] = cache.pools()

    def fail(servers: Any = None) -> None:
        raise epochs.EpochUnknown

    monkeypatch.setattr(epochs, "learn", fail)
    epochs.forget()
    with pytest.raises(epochs.EpochUnknown):
        pool.get_connection()
    monkeypatch.undo()
    connection = pool.get_connection()
    assert connection.approved is epochs.current
    pool.release(connection)
