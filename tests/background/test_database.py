"""Where database work runs: never on the event loop, and never on a caller's connection."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncRequestFactory

import llmcache
from llmcache.background import database as placement
from llmcache.background import transactions
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client

# Event loops


async def view(request: HttpRequest) -> JsonResponse:
    client: Any = request.llm_client  # type: ignore[attr-defined]
    with llmcache.capture() as calls:
        ticket = await client.create(**CALL)
    return JsonResponse({"title": ticket.title, "outcome": calls[0].outcome})


async def ask_the_view(model: StandIn) -> list[str]:
    request = AsyncRequestFactory().get("/")
    request.llm_client = make_client(model, async_client=True)  # type: ignore[attr-defined]
    return [(await view(request)).content.decode() for _ in range(2)]


def test_an_asynchronous_view(model: StandIn, database: str) -> None:
    first, second = asyncio.run(ask_the_view(model))
    assert '"miss"' in first
    assert '"hit"' in second
    assert len(model.calls) == 1


def test_a_synchronous_client_on_an_event_loop(model: StandIn, database: str) -> None:
    """It blocks the loop, as it does without us; but Django does not refuse the work."""
    client = make_client(model)

    async def main() -> list[str]:
        with llmcache.capture() as calls:
            client.create(**CALL)
            client.create(**CALL)
        return [call.outcome for call in calls]

    assert asyncio.run(main()) == ["miss", "hit"]


async def longest_pause(work: Any) -> float:
    """The longest time in seconds that the event loop stood still while `work` ran."""
    longest, running = 0.0, True

    async def tick() -> None:
        nonlocal longest
        while running:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - started - 0.005)

    ticker = asyncio.create_task(tick())
    await work
    running = False
    await ticker
    return longest


SLOWNESS = 0.5


@contextmanager
def slow_database(alias: str) -> Iterator[None]:
    """Every statement on the table of entries waits: PostgreSQL's lock, or a sleep before it."""
    if connections[alias].vendor != "postgresql":
        with slow(durable, "read"), slow(durable, "write"):
            yield
        return
    locked = threading.Event()

    def hold() -> None:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("LOCK TABLE llmcache_cacheentry IN ACCESS EXCLUSIVE MODE")
            locked.set()
            time.sleep(SLOWNESS)
        connections[alias].close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    yield
    holder.join()


@contextmanager
def slow(module: Any, name: str) -> Iterator[None]:
    function = getattr(module, name)

    def slowed(*args: Any, **kwargs: Any) -> Any:
        time.sleep(SLOWNESS)
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, slowed)
        yield


def test_a_slow_database_does_not_block_the_loop(model: StandIn, database: str) -> None:
    async def main() -> tuple[float, float, list[str]]:
        client = make_client(model, async_client=True)
        await client.create(**CALL, cache_mode="no-store")  # the SDK imports at its first call
        with llmcache.capture() as calls, slow_database(database):

            async def work() -> None:
                await client.create(**CALL)
                await client.create(**CALL)

            started = time.perf_counter()
            pause = await longest_pause(work())
            seconds = time.perf_counter() - started
        return pause, seconds, [call.outcome for call in calls]

    pause, seconds, outcomes = asyncio.run(main())
    assert outcomes == ["miss", "hit"]
    assert seconds > SLOWNESS * 0.9  # it did wait for the database
    # Not a time of ours: had the loop waited for the database, it would have stood this long.
    assert pause < SLOWNESS * 0.9


# Processes


def test_a_forked_child_has_threads_and_connections_of_its_own(database: str) -> None:
    assert placement.run(durable.entries().count) == 0
    connections.close_all()
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must not go on with the tests.
        try:
            os._exit(placement.run(durable.entries().count, patience=10))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_no_connection_crosses_a_fork(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "is_testing", lambda: False)  # else none stays open
    open_ones: list[Any] = []

    def note_the_connection() -> None:
        durable.entries().count()
        open_ones.append(connections[database].connection)

    placement.run(note_the_connection)
    assert open_ones[0] is not None
    threads = placement._workers._there
    assert threads
    for workers in placement.ALL:
        workers.pause()
    waiting = placement._submit(note_the_connection)
    assert not threads
    assert not waiting.done()
    for workers in placement.ALL:
        workers.resume()
    waiting.result(10)
    assert len(open_ones) == 2


def test_work_never_runs_on_the_callers_connection(database: str) -> None:
    def where() -> tuple[str, bool]:
        return threading.current_thread().name, connections[database].in_atomic_block

    assert placement.run(where) == ("llmcache rows", False)
    with transaction.atomic(using=database):
        assert placement.run(where) == ("llmcache rows", False)


def test_work_within_work_stays_on_its_thread(database: str) -> None:
    inner, outer = placement.run(
        lambda: (placement.run(threading.current_thread), threading.current_thread())
    )
    assert inner is outer
