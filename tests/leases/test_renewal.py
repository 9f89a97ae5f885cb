"""Leases that are renewed, and those of processes that are killed or forked."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmcache import leases
from llmcache.background import database as placement
from llmcache.leases import (
    Ending,
    Lease,
    flights,
)
from llmcache.models import Lease as LeaseRow
from llmcache.outcomes import Tier
from llmcache.store.records import Found
from project.standin.server import StandIn
from tests.support import child
from tests.support.asking import KEY, LEASE_SECONDS
from tests.support.backends import Backend, backend_parameters
from tests.support.clients import CALL, make_client
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

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
        wait_until(lambda: has_followers(mine))
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
        wait_until(lambda: has_followers(mine))
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


def has_followers(lease: Lease) -> bool:
    condition: Any = lease.flight.over._condition
    return bool(condition._waiters)
