"""Single flight when callers are cancelled, or lose their leader."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from llmcache import leases
from llmcache.background import transactions
from llmcache.leases import (
    Ending,
    Lease,
    acquisition,
    flights,
    places,
)
from llmcache.leases.places import HOT, Place
from project.standin.server import StandIn
from tests.support.asking import KEY
from tests.support.backends import Backend, backend_parameters
from tests.support.clients import CALL, make_client
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

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
        places, "free", lambda place, key, token, ending, _: freed.append(str(place.tier))
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
    monkeypatch.setattr(acquisition, "_lead", interrupted)
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
    monkeypatch.setattr(acquisition, "_lead", interrupted)
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
