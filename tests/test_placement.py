"""Where database work runs: never in the caller's transaction, never on the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncRequestFactory, TestCase

import llmcache
from llmcache.models import CacheEntry
from llmcache.store import durable, placement
from project.standin.server import StandIn
from tests.conftest import Backend, backend_parameters
from tests.test_client import CALL, make_client


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Undo(Exception):
    """The caller's transaction is rolled back."""


def test_a_rollback_of_the_caller_keeps_the_answer(model: StandIn, database: str) -> None:
    client = make_client(model)
    with suppress(Undo), transaction.atomic(using=database):
        client.create(**CALL)
        raise Undo
    wait_until(durable.entries().exists)
    client.create(**CALL)
    assert len(model.calls) == 1


def test_a_hit_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database), llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].outcome == "hit"


def test_trouble_inside_a_transaction_does_not_abort_it(model: StandIn, database: str) -> None:
    client = make_client(model)
    with transaction.atomic(using=database):
        Group.objects.using(database).create(name="mine")
        with without_table():
            client.create(**CALL)
            drain()
        Group.objects.using(database).create(name="mine too")
    assert Group.objects.using(database).count() == 2


@contextmanager
def without_table() -> Iterator[None]:
    """Inside, every statement of llmcache fails: it names a table that is not there."""
    meta = CacheEntry._meta
    name, meta.db_table = meta.db_table, "a_table_that_is_not_there"
    try:
        yield
    finally:
        meta.db_table = name


def drain() -> None:
    """Wait for the work that was put off."""
    for future in [placement._submit(lambda: None) for _ in range(placement.POOL_THREADS)]:
        future.result(10)
    placement._pool("put off", threads=1).submit(lambda: None).result(30)


def test_many_questions_in_one_transaction(model: StandIn, database: str) -> None:
    """Writes that are put off (SQLite) keep no lookup waiting, and all are kept."""
    client = make_client(model)
    with transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        started = time.perf_counter()
        for number in range(9):
            client.create(**CALL, seed=number)
        seconds = time.perf_counter() - started
    drain()
    assert durable.entries().count() == 9
    # Had one waited for another's lock, it would have been for the 5 seconds of the connection.
    assert seconds < 5


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["database"]), indirect=True)
def test_a_hit_in_a_transaction_does_not_wait_for_its_own_lock(
    model: StandIn, backend: Backend
) -> None:
    client = make_client(model)
    client.create(**CALL)
    caches["database"].clear()
    with transaction.atomic(), llmcache.capture() as calls:
        Group.objects.create(name="the caller is the writer")
        client.create(**CALL)
    assert calls[0].tier == "durable"
    assert calls[0].seconds < 5


@pytest.mark.parametrize("backend", backend_parameters(["postgres"], [None]), indirect=True)
def test_connections_that_the_server_has_closed(
    model: StandIn, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_testing", lambda: False)  # else none stays open
    monkeypatch.setattr(placement, "IDLE_SECONDS", 0.0)
    client = make_client(model)
    try:
        with transaction.atomic(using="postgres"):
            client.create(**CALL)
            with connections["postgres"].cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            with llmcache.capture() as calls:
                client.create(**CALL)
                client.create(**CALL, seed=1)
        assert [(call.outcome, call.stored) for call in calls] == [("hit", False), ("miss", True)]
    finally:
        for _ in range(placement.POOL_THREADS):
            placement._submit(close_connections)
        drain()


def close_connections() -> None:
    time.sleep(0.1)  # so that each thread of the pool has its turn
    connections.close_all()


def test_invalidating_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database):
        result = llmcache.invalidate(everything=True)
    assert result.entries == 1
    # SQLite has one writer, the caller: others see it after the commit.
    assert result.pending == (("durable",) if database == "default" else ())
    assert not durable.entries().exists()


@pytest.mark.django_db
def test_the_transaction_around_a_test_is_not_the_callers(model: StandIn) -> None:
    client = make_client(model)
    with llmcache.capture() as calls:
        client.create(**CALL)
        client.create(**CALL)
        with transaction.atomic():
            client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit", "hit"]
    assert connections["default"].in_atomic_block


class UsersTests(TestCase):
    """Tests as a user writes them; each begins with an empty cache, so the other was undone."""

    def ask_twice(self) -> None:
        with StandIn() as model, llmcache.capture() as calls:
            client = make_client(model)
            client.create(**CALL)
            client.create(**CALL)
        assert [call.outcome for call in calls] == ["miss", "hit"]

    def test_one(self) -> None:
        self.ask_twice()

    def test_another(self) -> None:
        self.ask_twice()

    async def test_asynchronously(self) -> None:
        with StandIn() as model, llmcache.capture() as calls:
            client = make_client(model, async_client=True)
            await client.create(**CALL)
            await client.create(**CALL)
        assert [call.outcome for call in calls] == ["miss", "hit"]


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


def test_a_forked_child_has_a_pool_of_its_own(database: str) -> None:
    assert placement._submit(lambda: 1).result(5) == 1
    connections.close_all()
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must not go on with the tests.
        try:
            os._exit(placement._submit(durable.entries().count).result(5))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_work_runs_on_threads_of_ours_only_where_it_must(database: str) -> None:
    here = threading.current_thread().name
    assert placement.run(lambda: threading.current_thread().name) == here
    with transaction.atomic(using=database):
        assert placement.run(lambda: threading.current_thread().name).startswith("llmcache")
