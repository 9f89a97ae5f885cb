"""Leases in the hot tier and in rows, and trouble with either."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connections, transaction

from llmcache import leases
from llmcache.background import database as placement
from llmcache.breakers import trying
from llmcache.leases import (
    Ending,
    Lease,
    acquisition,
    flights,
    kinds,
    places,
)
from llmcache.leases.kinds import MOST_RELEASED, Seen
from llmcache.leases.places import HOT, ROWS, Place
from llmcache.models import Lease as LeaseRow
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from llmcache.store.rows import locks
from project.standin.server import StandIn
from tests.support.asking import KEY, LEASE_SECONDS, OTHER_KEY, ask_in_threads, outcomes
from tests.support.backends import Backend, backend_parameters
from tests.support.clients import make_client
from tests.support.entries import in_deadlocks
from tests.support.servers import RedisServer, require
from tests.support.waiting import cancel_after, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# Places


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

    def test_just_after_an_answer_was_stored_one_gets_it(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever else comes in between two questions of one to the tier."""
        places.acquire(KEY, "first")
        places.free(place, KEY, "first", Ending.STORED)
        holders: list[str | None] = []
        drop = hot.drop

        def come_first(names: Any) -> None:
            monkeypatch.setattr(hot, "drop", drop)
            holders.append(places.acquire(KEY, "quick")[1])
            drop(names)

        monkeypatch.setattr(hot, "drop", come_first)
        holders.append(places.acquire(KEY, "slow")[1])
        assert holders.count(None) == 1

    def test_waiters_are_told_to_ask_for_themselves(self, place: Place) -> None:
        places.acquire(KEY, "first")
        places.free(place, KEY, "first", Ending.RELEASED)
        assert place.observe(KEY, "first") is Seen.RELEASED
        assert places.acquire(KEY, "second") == (place, None)
        assert place.observe(KEY, "first") is Seen.RELEASED
        assert place.observe(KEY, "second") is Seen.ASKING

    def test_waiters_of_earlier_ones_are_told_too(self, place: Place) -> None:
        """Who looks only now waited for the first; the others came, and failed, in between."""
        names = [uuid4().hex for _ in range(2 * MOST_RELEASED)]
        for name in names:
            places.acquire(KEY, name)
            places.free(place, KEY, name, Ending.RELEASED)
        places.acquire(KEY, "next")
        latest = names[-MOST_RELEASED:]
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

    monkeypatch.setattr(kinds, "ACQUIRE_SECONDS", 60)
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
    follower = asyncio.create_task(acquisition._acarry_out(acquisition.Pause(flight, 10)))
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

    monkeypatch.setattr(places, "_places", lambda: iter([place]))
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
