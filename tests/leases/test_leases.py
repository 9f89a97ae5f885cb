"""Single flight: of many who ask the same, one asks the model."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connections, transaction

import llmcache
from llmcache import leases, store, trampoline
from llmcache.background import database as placement
from llmcache.background import transactions
from llmcache.breakers import trying
from llmcache.codec.envelope import ANSWER, seal
from llmcache.leases import (
    Ending,
    Lease,
    flights,
    in_hot_tier,
    in_rows,
    places,
)
from llmcache.leases.place import Place, Seen
from llmcache.leases.places import HOT, ROWS
from llmcache.models import Lease as LeaseRow
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from llmcache.store.rows import locks
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support import child
from tests.support.backends import Backend, backend_parameters, use_backend
from tests.support.clients import CALL, make_client
from tests.support.entries import in_deadlocks
from tests.support.servers import RedisServer, require
from tests.support.waiting import cancel_after, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
LEASE_SECONDS = 10  # by default


def ask_in_threads(client: Any, number: int, **arguments: Any) -> list[Future[Any]]:
    """So many calls at once, of which the last has begun; to be waited for."""
    begun = threading.Semaphore(0)

    def ask() -> Any:
        begun.release()
        with llmcache.capture() as calls:
            client.create(**CALL, **arguments)
        connections.close_all()
        return calls[0]

    pool = ThreadPoolExecutor(number)
    futures = [pool.submit(ask) for _ in range(number)]
    for _ in futures:
        assert begun.acquire(timeout=10)
    pool.shutdown(wait=False)
    return futures


def outcomes(futures: list[Future[Any]]) -> list[str]:
    return sorted(str(future.result(30).outcome) for future in futures)


async def ask_in_tasks(client: Any, number: int) -> list[str]:
    async def ask() -> str:
        with llmcache.capture() as calls:
            await client.create(**CALL)
        return str(calls[0].outcome)

    return sorted(await asyncio.gather(*(ask() for _ in range(number))))


def test_one_of_many_threads_asks(model: StandIn, backend: Backend) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 20)) == ["hit"] * 19 + ["miss"]
    assert len(model.calls) == 1


def test_one_of_many_coroutines_asks(model: StandIn, database: str) -> None:
    model.latency = 0.5
    client = make_client(model, async_client=True)
    assert asyncio.run(ask_in_tasks(client, 50)) == ["hit"] * 49 + ["miss"]
    assert len(model.calls) == 1


def test_threads_and_coroutines_wait_for_each_other(model: StandIn) -> None:
    model.latency = 1.0
    futures = ask_in_threads(make_client(model), 10)
    tasks = asyncio.run(ask_in_tasks(make_client(model, async_client=True), 10))
    assert sorted(outcomes(futures) + tasks) == ["hit"] * 19 + ["miss"]
    assert len(model.calls) == 1


def test_whoever_waited_is_told_why(model: StandIn) -> None:
    model.latency = 0.5
    calls = [future.result(30) for future in ask_in_threads(make_client(model), 2)]
    assert sorted(call.reason for call in calls) == ["", "another call was asking the same"]


def test_an_answer_that_came_after_the_lookup_is_found(
    model: StandIn, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the lookup of one call and its turn, another one has asked, stored and gone."""
    client = make_client(model)
    lookup = store.lookup

    def miss_and_be_late(key: str, *, stale: bool = False) -> Any:
        monkeypatch.setattr(store, "lookup", lookup)
        missing = lookup(key, stale=stale)
        client.create(**CALL)
        return missing

    monkeypatch.setattr(store, "lookup", miss_and_be_late)
    with llmcache.capture() as calls:
        assert client.create(**CALL) == client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit", "hit"]
    assert len(model.calls) == 1
    assert all(threads.drain(10) for threads in placement._of_tiers.values())
    assert places.acquire(calls[0].key, "next")[1] is None
    hits.flush()
    assert durable.entries().get().hits == 2


def test_what_does_not_validate_is_asked_for_once(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found again when it is this call's turn, and must not be taken for an answer."""
    client = make_client(model)
    client.create(**CALL)
    key = llmcache.key_for(client, **CALL)
    payload = seal(ANSWER, key, b"not an answer", created=time.time())
    durable.entries().update(payload=payload)
    model.latency = 0.5
    assert outcomes(ask_in_threads(client, 5)) == ["hit"] * 4 + ["miss"]
    assert len(model.calls) == 2


def test_a_failure_lets_all_go_at_once(model: StandIn) -> None:
    """One after the other would take five times as long."""
    model.latency = 1.0
    model.fail_with = 400
    started = time.monotonic()
    futures = ask_in_threads(make_client(model), 5, max_retries=0)
    assert all(future.exception(30) for future in futures)
    assert len(model.calls) == 5
    assert time.monotonic() - started < 4.5


def test_an_answer_that_is_not_stored_lets_all_go(model: StandIn) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 4, cache_ttl=0)) == ["miss"] * 4
    assert len(model.calls) == 4


def test_nobody_waits_for_longer_than_that(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "WAIT_SECONDS": 0.2}
    model.latency = 1.0
    assert outcomes(ask_in_threads(make_client(model), 2)) == ["miss"] * 2


def test_reload_asks_whatever_others_ask(model: StandIn) -> None:
    model.latency = 0.5
    assert outcomes(ask_in_threads(make_client(model), 2, cache_mode="reload")) == ["reload"] * 2


def test_waiters_hold_no_connection(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None}
    model.latency = 1.0
    opened: list[Any] = []

    def ask() -> None:
        make_client(model).create(**CALL)
        opened.extend(connections.all(initialized_only=True))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(connection.connection is None for connection in opened)
    assert len(model.calls) == 1


# Cancelling


@pytest.mark.parametrize("backend", backend_parameters(["default"], [None, "redis"]), indirect=True)
def test_cancelling_who_waits_harms_nobody(model: StandIn, backend: Backend) -> None:
    model.latency = 1.0
    client = make_client(model, async_client=True)

    async def main() -> None:
        tasks = [asyncio.create_task(client.create(**CALL))]
        await asyncio.to_thread(wait_until, lambda: bool(model.calls))
        tasks += [asyncio.create_task(client.create(**CALL)) for _ in range(3)]
        await asyncio.sleep(0.2)
        tasks[1].cancel()
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(answer, BaseException) for answer in answers] == [False, True] * 2

    asyncio.run(main())
    assert len(model.calls) == 1


@pytest.mark.parametrize("backend", backend_parameters(["default"], [None, "redis"]), indirect=True)
def test_cancelling_who_asks_lets_another_one_ask(model: StandIn, backend: Backend) -> None:
    model.latency = 0.5
    client = make_client(model, async_client=True)

    async def main() -> None:
        holder = asyncio.create_task(client.create(**CALL))
        await asyncio.to_thread(wait_until, lambda: bool(model.calls))
        others = [asyncio.create_task(client.create(**CALL)) for _ in range(4)]
        await asyncio.sleep(0.1)
        holder.cancel()
        await asyncio.gather(*others)

    asyncio.run(main())
    assert len(model.calls) == 2
    assert not flights._flights


async def test_cancelled_while_it_claims_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim goes on, on another thread; what it gets is given back."""
    claimed, go_on = threading.Event(), threading.Event()
    freed: list[str] = []

    def claim(key: str, token: str) -> tuple[Place, None]:
        claimed.set()
        assert go_on.wait(10)
        return HOT, None

    monkeypatch.setattr(places, "acquire", claim)
    monkeypatch.setattr(
        places, "free", lambda place, key, token, ending: freed.append(str(place.tier))
    )
    monkeypatch.setattr(transactions, "is_testing", lambda: False)
    task = asyncio.create_task(leases.aacquire(KEY, 10))
    assert await asyncio.to_thread(claimed.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(wait_until, lambda: len(freed) >= 4)
    assert not flights._flights


@pytest.mark.parametrize("backend", backend_parameters(["default"], [None, "redis"]), indirect=True)
def test_a_soft_time_limit_of_celery_ends_the_waiting(backend: Backend, settings: Any) -> None:
    """A signal raises it, while another process has the lease."""
    settings.LLMCACHE = {**backend.llmcache, "WAIT_SECONDS": 10}

    def leave(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, leave)
    assert places.acquire(KEY, "of another process")[1] is None
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            leases.acquire(KEY, 10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not flights._flights


def test_a_flight_that_lost_its_leader_is_waited_for_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal came after the leader had joined it, and before it led."""
    monkeypatch.setattr(trampoline, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leases.acquire(KEY, 10)
    monkeypatch.undo()
    assert leases.acquire(KEY, 0.1) is None
    lease = leases.acquire(KEY, 0.1)
    assert isinstance(lease, Lease)
    lease.end(Ending.ABANDONED)


async def test_a_flight_that_lost_its_leader_is_waited_for_once_by_coroutines(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trampoline, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leases.acquire(KEY, 10)
    monkeypatch.undo()
    assert await leases.aacquire(KEY, 0.1) is None
    lease = await leases.aacquire(KEY, 0.1)
    assert isinstance(lease, Lease)
    lease.end(Ending.ABANDONED)


@pytest.mark.parametrize("backend", backend_parameters(["default"], [None, "redis"]), indirect=True)
def test_a_lease_that_lost_its_holder_is_renewed_until_somebody_gives_up(
    backend: Backend, settings: Any
) -> None:
    """A signal came after the leader had got it, and before it could give it back."""
    settings.LLMCACHE = {**backend.llmcache, "LEASE_SECONDS": 1}
    assert isinstance(leases.acquire(KEY, 10), Lease)
    assert leases.acquire(KEY, 0.1) is None
    lease = leases.acquire(KEY, 10)
    assert isinstance(lease, Lease)
    lease.end(Ending.ABANDONED)


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


# Places


@pytest.fixture(
    params=[
        *backend_parameters(["default", "postgres", "mariadb"], [None]),
        *backend_parameters(["default"], ["redis", "django-redis"]),
    ]
)
def place(request: pytest.FixtureRequest, settings: Any) -> Place:
    chosen = use_backend(request, settings, request.param)
    return ROWS if chosen.cache is None else HOT


class TestPlaces:
    def test_one_gets_it(self, place: Place) -> None:
        assert places.acquire(KEY, "first") == (place, None)
        assert places.acquire(KEY, "second") == (place, "first")
        assert place.observe(KEY, "first") is Seen.ASKING

    def test_who_asks_for_it_again_has_it(self, place: Place) -> None:
        places.acquire(KEY, "first")
        assert places.acquire(KEY, "first") == (place, None)

    def test_of_many_at_once_one_gets_it(self, place: Place) -> None:
        with ThreadPoolExecutor(8) as pool:
            claims = list(pool.map(lambda n: places.acquire(KEY, f"no. {n}")[1], range(8)))
        assert claims.count(None) == 1
        [winner] = [f"no. {n}" for n, holder in enumerate(claims) if holder is None]
        assert all(holder in {winner, ""} for holder in claims if holder is not None)

    def test_it_is_free_again_when_the_answer_is_stored(self, place: Place) -> None:
        places.acquire(KEY, "first")
        places.free(place, KEY, "first", Ending.STORED)
        assert place.observe(KEY, "first") is Seen.GONE
        assert places.acquire(KEY, "second") == (place, None)

    def test_waiters_are_told_to_ask_for_themselves(self, place: Place) -> None:
        places.acquire(KEY, "first")
        places.free(place, KEY, "first", Ending.RELEASED)
        assert place.observe(KEY, "first") is Seen.RELEASED
        assert places.acquire(KEY, "second") == (place, None)
        assert place.observe(KEY, "first") is Seen.RELEASED
        assert place.observe(KEY, "second") is Seen.ASKING

    def test_waiters_of_earlier_ones_are_told_too(self, place: Place) -> None:
        """Who looks only now waited for the first; the others came, and failed, in between."""
        names = [uuid4().hex for _ in range(2 * in_rows.MOST_RELEASED)]
        for name in names:
            places.acquire(KEY, name)
            places.free(place, KEY, name, Ending.RELEASED)
        places.acquire(KEY, "next")
        latest = names[-in_rows.MOST_RELEASED :]
        assert {place.observe(KEY, name) for name in latest} == {Seen.RELEASED}
        assert place.observe(KEY, "next") is Seen.ASKING

    def test_nobody_waits_for_nobody(self, place: Place) -> None:
        """A claim fails, and before it is read who has the lease, that one lets it go."""
        places.acquire(KEY, "first")
        places.free(place, KEY, "first", Ending.RELEASED)
        assert place.observe(KEY, "") is Seen.GONE

    def test_it_vanishes_with_its_holder(self, place: Place, settings: Any) -> None:
        settings.LLMCACHE = {**settings.LLMCACHE, "LEASE_SECONDS": 1}
        places.acquire(KEY, "first")
        wait_until(lambda: place.observe(KEY, "first") is Seen.GONE)
        assert places.acquire(KEY, "second") == (place, None)

    def test_it_stays_while_it_is_renewed(self, place: Place, settings: Any) -> None:
        settings.LLMCACHE = {**settings.LLMCACHE, "LEASE_SECONDS": 1}
        places.acquire(KEY, "first")
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            places.renew(place, KEY, "first")
            time.sleep(0.1)
        assert place.observe(KEY, "first") is Seen.ASKING

    def test_nobody_frees_or_renews_anothers(self, place: Place) -> None:
        places.acquire(KEY, "first")
        places.free(place, KEY, "second", Ending.STORED)
        places.renew(place, KEY, "second")
        assert place.observe(KEY, "first") is Seen.ASKING


@pytest.fixture
def redis(settings: Any) -> Iterator[RedisServer]:
    """A server of one's own, which is the hot tier."""
    require(RedisServer)
    with RedisServer() as server:
        own = {**settings.CACHES["redis"], "LOCATION": server.url}
        settings.CACHES = {**settings.CACHES, "own": own}
        settings.LLMCACHE = {**settings.LLMCACHE, "CACHE": "own"}
        yield server


def test_a_claim_that_nobody_heard_of_keeps_nobody_waiting(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server was sent before it hung, it carries out when it goes on.

    Even where whoever sent it has ended since, and frees nothing.
    """
    monkeypatch.setattr(places, "free_later", lambda *_: None)
    places.acquire(OTHER_KEY, "to have a connection")
    redis.pause()
    assert places.acquire(KEY, "first")[0] is ROWS
    redis.resume()
    with trying(Tier.HOT):
        assert HOT.observe(KEY, "first") is Seen.ASKING  # it was carried out
        wait_until(lambda: HOT.observe(KEY, "first") is Seen.GONE, seconds=LEASE_SECONDS / 2)


def test_what_could_not_be_freed_is_freed_when_the_tier_is_back(redis: RedisServer) -> None:
    assert places.acquire(KEY, "first") == (HOT, None)
    redis.pause()
    places.free(HOT, KEY, "first", Ending.STORED)
    redis.resume()
    with trying(Tier.HOT):
        assert HOT.observe(KEY, "first") is Seen.ASKING
        wait_until(lambda: HOT.observe(KEY, "first") is Seen.GONE, seconds=LEASE_SECONDS / 2)


@pytest.mark.usefixtures("redis")
def test_a_claim_whose_reply_was_lost_is_freed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def lose_the_reply(*_: Any) -> bool:
        seen.append(HOT.observe(KEY, "first"))
        raise TimeoutError

    monkeypatch.setattr(in_hot_tier, "ACQUIRE_SECONDS", 60)
    monkeypatch.setattr(HOT, "patience", 0.05)
    monkeypatch.setattr(hot, "touch", lose_the_reply)
    assert places.acquire(KEY, "first") == (ROWS, None)
    assert seen[0] is Seen.ASKING
    wait_until(lambda: HOT.observe(KEY, "first") is Seen.GONE, seconds=LEASE_SECONDS / 2)


def test_a_claim_that_met_a_deadlock_is_made_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ROWS, "_acquire", in_deadlocks(2, ROWS._acquire))
    assert places.acquire(KEY, "first") == (ROWS, None)
    monkeypatch.setattr(ROWS, "_acquire", in_deadlocks(99, ROWS._acquire))
    assert places.acquire(KEY, "second") == (None, None)


def test_what_was_not_claimed_while_another_one_writes_is_not_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each free would wait for the writer of SQLite as long as it may, and keep others waiting."""
    freed: list[object] = []
    monkeypatch.setattr(places, "free_later", lambda *args: freed.append(args))
    with transaction.atomic(), ThreadPoolExecutor(1) as thread:
        locks.take_write_lock("default")
        assert thread.submit(places.acquire, KEY, "first").result(10) == (None, None)
    assert freed == []


@pytest.mark.usefixtures("redis")
async def test_a_database_that_hangs_holds_up_no_lease_of_the_hot_tier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is cancelled while another one has the lease gives back what he may have."""
    answers = threading.Event()
    monkeypatch.setattr(ROWS, "free", lambda *_: answers.wait(60))
    assert places.acquire(KEY, "of another process")[1] is None
    for _ in range(4):
        waiter = asyncio.create_task(leases.aacquire(KEY, 10))
        await asyncio.sleep(0.1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    lease = await leases.aacquire(OTHER_KEY, 1)
    assert isinstance(lease, Lease)
    try:
        lease.end(Ending.RELEASED)
        look = partial(HOT.observe, OTHER_KEY, lease.token)
        await asyncio.to_thread(wait_until, lambda: look() is Seen.RELEASED, LEASE_SECONDS / 2)
    finally:
        answers.set()


@pytest.mark.parametrize("turns", range(1, 5))
async def test_who_is_cancelled_as_the_answer_comes_is_cancelled(turns: int) -> None:
    flight = flights.Flight(KEY)
    follower = asyncio.create_task(flight.await_(10))
    await asyncio.sleep(0.01)
    flight.end(Ending.STORED)
    await cancel_after(turns, follower)


@pytest.mark.parametrize("place", [HOT, ROWS], ids=["hot", "rows"])
@pytest.mark.usefixtures("redis")
def test_what_fails_to_be_freed_for_a_moment_keeps_nobody_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, failures = place.free, iter([OperationalError("database is locked")] * 2)

    def fail_twice(*args: Any) -> None:
        for failure in failures:
            raise failure
        free(*args)

    monkeypatch.setattr(places, "_places", lambda: [place])
    monkeypatch.setattr(place, "free", fail_twice)
    lease = leases.acquire(KEY, 1)
    assert isinstance(lease, Lease)
    assert place.observe(KEY, lease.token) is Seen.ASKING
    lease.end(Ending.STORED)
    wait_until(lambda: place.observe(KEY, lease.token) is Seen.GONE, seconds=LEASE_SECONDS / 2)


@pytest.mark.usefixtures("redis")
def test_a_database_that_hangs_keeps_no_lease_in_the_hot_tier() -> None:
    lease = leases.acquire(KEY, 1)
    assert isinstance(lease, Lease)
    answers = threading.Event()
    for writing in [True, False] * placement.POOL_THREADS:
        placement.later(answers.wait, writing=writing)
    try:
        lease.end(Ending.STORED)
        wait_until(lambda: HOT.observe(KEY, lease.token) is Seen.GONE, seconds=LEASE_SECONDS / 2)
    finally:
        answers.set()


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["redis"]), indirect=True)
def test_a_lease_is_back_after_the_tier_was_emptied(backend: Backend) -> None:
    places.acquire(KEY, "first")
    tier = hot.backend()
    assert tier is not None
    tier.clear()
    places.renew(HOT, KEY, "first")
    assert HOT.observe(KEY, "first") is Seen.ASKING


def test_in_the_transaction_of_a_test_there_are_no_rows(database: str) -> None:
    with transaction.atomic(using=database):
        connections[database].atomic_blocks[-1]._from_testcase = True  # type: ignore[attr-defined]
        assert places.acquire(KEY, "first") == (None, None)
    assert not LeaseRow.objects.using(database).exists()


def test_where_no_lease_can_be_had_each_process_asks(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(places, "acquire", fail)
    model.latency = 0.3
    assert outcomes(ask_in_threads(make_client(model), 5)) == ["hit"] * 4 + ["miss"]


@pytest.mark.parametrize("backend", backend_parameters(["postgres"], ["redis"]), indirect=True)
def test_a_moments_trouble_leaves_the_lease_where_it_is(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the rows nobody holds it: the next one would get it there, and two would ask."""
    places.acquire(KEY, "first")
    add, failures = hot.add, iter([TimeoutError("the first time")])

    def fail_once(*args: Any) -> bool:
        for failure in failures:
            raise failure
        return add(*args)

    monkeypatch.setattr(hot, "add", fail_once)
    assert places.acquire(KEY, "second") == (HOT, "first")


# Renewal


def test_a_lease_outlives_its_seconds_while_the_call_runs(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "LEASE_SECONDS": 1}
    model.latency = 3.0
    receivers = [child.start(order(model, settings)) for _ in range(3)]
    for receiver in receivers:
        child.receive(receiver)
    assert len(model.calls) == 1


def test_a_lease_that_has_ended_is_renewed_no_more(database: str) -> None:
    lease = leases.acquire(KEY, 10)
    assert isinstance(lease, Lease)
    assert lease.renewal is not None
    assert lease.renewal.work is not None
    lease.end(Ending.STORED)
    assert lease.renewal.work is None


def test_a_lease_whose_flight_was_given_up_is_renewed_no_more(database: str) -> None:
    lease = leases.acquire(KEY, 10)
    assert isinstance(lease, Lease)
    assert lease.renewal is not None
    renew = lease.renewal.work
    assert renew is not None
    assert renew() == LEASE_SECONDS / 3
    lease.flight.give_up()
    assert renew() is None
    lease.end(Ending.ABANDONED)


# Processes


def order(model: StandIn, settings: Any) -> dict[str, Any]:
    return {"llmcache_settings": settings.LLMCACHE, "base_url": model.url, "times": 1}


@pytest.mark.parametrize(
    "backend", backend_parameters(["default", "postgres"], [None, "redis"]), indirect=True
)
def test_another_process_takes_over_when_the_holder_is_killed(
    model: StandIn, backend: Backend, settings: Any
) -> None:
    # (in less, load alone would keep one that lives from renewing its lease)
    settings.LLMCACHE = {**backend.llmcache, "LEASE_SECONDS": 4}
    model.latency = 60.0  # of the holder, who will not live to see the answer
    holder = child.start_to_be_killed(order(model, settings))
    wait_until(lambda: len(model.calls) == 1)
    model.latency = 0.5
    waiters = [child.start(order(model, settings)) for _ in range(3)]
    time.sleep(0.5)
    holder.kill()
    told = [child.receive(waiter)[0][0] for waiter in waiters]
    assert sorted(told) == ["hit", "hit", "miss"]
    assert len(model.calls) == 2


def test_a_forked_child_leads_its_own_flights() -> None:
    flight, leads = flights.join(KEY)
    assert leads
    forked = os.fork()
    if forked == 0:
        try:
            os._exit(0 if flights.join(KEY)[1] else 1)
        finally:
            os._exit(99)
    _, status = os.waitpid(forked, 0)
    flight.end(Ending.ABANDONED)
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_lease_is_gone_when_the_answer_is_there(model: StandIn, database: str) -> None:
    make_client(model).create(**CALL)
    assert placement._of_tiers[Tier.DURABLE].drain(10)
    assert not LeaseRow.objects.using(database).exists()


def test_an_answer_is_handed_to_those_who_wait_in_this_process() -> None:
    """They need not look it up again."""
    mine = leases.acquire(KEY, 10)
    assert isinstance(mine, Lease)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(leases.acquire, KEY, 10)
        wait_until(lambda: bool(mine.flight._wakers))
        found = Found(b"body", Tier.LOCAL, None)
        mine.settle()
        mine.end(Ending.STORED, found)
        assert other.result(10) is found


def test_an_answer_is_not_handed_to_who_came_when_it_was_being_stored() -> None:
    """It may have been stored, and invalidated, before he began."""
    mine = leases.acquire(KEY, 10)
    assert isinstance(mine, Lease)
    mine.settle()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(leases.acquire, KEY, 10)
        wait_until(lambda: bool(mine.flight._wakers))
        mine.end(Ending.STORED, Found(b"body", Tier.LOCAL, None))
        his = other.result(10)
    assert isinstance(his, Lease)
    his.end(Ending.RELEASED)


async def test_nor_to_a_coroutine_that_came_then() -> None:
    mine = await leases.aacquire(KEY, 10)
    assert isinstance(mine, Lease)
    mine.settle()
    other = asyncio.create_task(leases.aacquire(KEY, 10))
    await asyncio.sleep(0.1)
    mine.end(Ending.STORED, Found(b"body", Tier.LOCAL, None))
    his = await other
    assert isinstance(his, Lease)
    his.end(Ending.RELEASED)
