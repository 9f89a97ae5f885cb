"""Where database work runs: never in the caller's transaction, never on the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from celery.signals import worker_process_shutdown
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncRequestFactory, Client, TestCase
from django.urls import path

import llmcache
from llmcache import store
from llmcache.background import database as placement
from llmcache.background import pool, transactions
from llmcache.background.pool import Workers
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import Backend, backend_parameters, without_table
from tests.support.clients import CALL, make_client
from tests.support.entries import draft
from tests.support.waiting import cancel_after, wait_until


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


def order(request: HttpRequest) -> JsonResponse:
    """A view that writes, asks the model, and fails when it is called for the first time."""
    using, client = request.META["test.database"], request.META["test.client"]
    Group.objects.using(using).create(name="an order")
    ticket = client.create(**CALL)
    if request.META["test.fails"]:
        raise Undo
    return JsonResponse({"title": ticket.title})


urlpatterns = [path("order", order)]


def test_a_view_that_fails_after_the_model_answered(
    model: StandIn, database: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``ATOMIC_REQUESTS``: what it wrote is rolled back, and the retry need not pay again."""
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(connections.settings[database], "ATOMIC_REQUESTS", True)
    browser: Any = Client(raise_request_exception=False)
    facts = {"test.database": database, "test.client": make_client(model)}
    assert browser.get("/order", **facts, **{"test.fails": True}).status_code == 500
    assert not Group.objects.using(database).exists()
    wait_until(durable.entries().exists)
    retry = browser.get("/order", **facts, **{"test.fails": False})
    assert retry.status_code == 200
    assert retry.json()["title"]
    assert Group.objects.using(database).count() == 1
    assert len(model.calls) == 1


def test_a_hit_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database), llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].outcome == "hit"


def test_trouble_inside_a_transaction_does_not_abort_it(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL, seed=1)  # (statements are put together once, with the table's name)
    with without_table():
        with transaction.atomic(using=database):
            Group.objects.using(database).create(name="mine")
            client.create(**CALL)
            Group.objects.using(database).create(name="mine too")
        drain()
    assert Group.objects.using(database).count() == 2


def drain() -> None:
    """Wait for the work that was put off."""
    assert all(pool.drain(30) for pool in placement._all())


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
    monkeypatch.setattr(transactions, "is_testing", lambda: False)  # else none stays open
    monkeypatch.setattr(placement, "IDLE_SECONDS", 0.0)
    client = make_client(model)
    try:
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
        placement._part()  # (the test database could not be dropped)
        placement._go_on()


def test_invalidating_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database):
        result = llmcache.invalidate(everything=True)
    assert result.entries == 1
    # SQLite has one writer, the caller: others see it after the commit.
    assert result.pending == (("durable",) if database == "default" else ())
    assert not durable.entries().exists()


def test_asynchronous_code_inside_a_transaction(model: StandIn, database: str) -> None:
    """The transaction is one of another thread than that of the event loop."""
    create = async_to_sync(make_client(model, async_client=True).create)
    with suppress(Undo), transaction.atomic(using=database), llmcache.capture() as calls:
        Group.objects.using(database).create(name="the caller is the writer")
        create(**CALL)
        raise Undo
    assert (calls[0].stored, calls[0].reason) == (True, "")
    assert calls[0].seconds < placement.WRITE_SECONDS
    wait_until(durable.entries().exists)


@pytest.mark.parametrize("by", ["keys", "tags", "everything"])
def test_invalidating_what_waits_for_the_end_of_the_transaction(
    model: StandIn, database: str, by: str
) -> None:
    """The rollback undoes the invalidation, and the answer is written after all."""
    client = make_client(model)
    criteria: Any = {"keys": [llmcache.key_for(client, **CALL)], "tags": ["t"], "everything": True}
    with suppress(Undo), transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        client.create(**CALL, cache_tags=["t"])
        result = llmcache.invalidate(**{by: criteria[by]})
        raise Undo
    assert all(pool.drain(30) for pool in placement._all())
    is_done = "durable" not in result.pending
    assert is_done is not durable.entries().exists()


def test_invalidating_asynchronously_inside_a_transaction(model: StandIn, database: str) -> None:
    make_client(model).create(**CALL)
    ainvalidate = async_to_sync(llmcache.ainvalidate)
    with transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        started = time.perf_counter()
        result = ainvalidate(everything=True)
        assert time.perf_counter() - started < 5
    assert result.entries == 1
    assert result.pending == (("durable",) if database == "default" else ())
    assert not durable.entries().exists()


def test_a_busy_thread_keeps_no_coroutine_waiting_for_its_transaction(
    model: StandIn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "is_testing", lambda: False)  # (it would wait for its own)
    monkeypatch.setattr(placement, "_may_stay_open", lambda connection: False)
    done = threading.Event()

    async def main() -> float:
        busy = asyncio.ensure_future(sync_to_async(done.wait)(20))
        await asyncio.sleep(0)
        with llmcache.capture() as calls:
            await make_client(model, async_client=True).create(**CALL)
        done.set()
        await busy
        assert calls[0].stored
        return calls[0].seconds

    assert asyncio.run(main()) < 5


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
        with slow(durable, "read_many"), slow(durable, "write"):
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
    placement._part()
    waiting = placement._submit(placement._workers, note_the_connection)
    assert not threads
    assert not waiting.done()
    placement._go_on()
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


def test_nobody_waits_for_long(database: str) -> None:
    """What is to be read is given up; what is to be written is written all the same."""
    done = threading.Event()

    def slowly() -> None:
        time.sleep(0.3)
        done.set()

    with pytest.raises(TimeoutError):
        placement.run(slowly, patience=0.05)
    done.clear()
    with pytest.raises(TimeoutError):
        placement.run(slowly, patience=0.05, writing=True)
    assert done.wait(10)


@pytest.mark.parametrize("turns", range(1, 5))
async def test_who_is_cancelled_as_a_result_comes_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    result: Future[str] = Future()
    monkeypatch.setattr(transactions, "is_testing", lambda: False)
    monkeypatch.setattr(placement, "_submit", lambda *_, **__: result)
    caller = asyncio.create_task(placement.arun(lambda: "result"))
    await asyncio.sleep(0.01)
    result.set_result("result")
    await cancel_after(turns, caller)


async def test_a_result_that_came_in_time_counts_although_the_loop_was_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result: Future[str] = Future()
    monkeypatch.setattr(transactions, "is_testing", lambda: False)
    monkeypatch.setattr(placement, "_submit", lambda *_, **__: result)
    caller = asyncio.create_task(placement.arun(lambda: "result", patience=0.05))
    await asyncio.sleep(0.01)
    result.set_result("result")
    time.sleep(0.1)  # noqa: ASYNC251 - that is the point
    assert await caller == "result"


def test_a_thread_that_is_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STUCK_SECONDS", 0.1)
    answered = threading.Event()
    team = Workers("test", 1)
    stuck = team.submit(lambda: answered.wait(30))
    time.sleep(0.2)
    assert team.submit(lambda: "done").result(10) == "done"
    answered.set()
    assert stuck.result(10)


def test_a_server_that_hangs_does_not_get_ever_more_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "STUCK_SECONDS", 0.01)
    answered = threading.Event()
    team = Workers("test", 3)
    for _ in range(20):
        team.submit(lambda: answered.wait(30))
        time.sleep(0.02)
    assert len(team._there) == 3 * pool.MOST_STUCK == 6
    answered.set()
    assert team.drain(10)


def test_threads_without_work_end_and_close_their_connections(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)

    def connect() -> Any:
        connections[database].ensure_connection()
        return connections[database]

    team = Workers("test", 2)
    connection = team.submit(connect).result(10)
    wait_until(lambda: not team._there)
    assert connection.connection is None
    assert team.submit(lambda: 2).result(10) == 2


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_WAITING", 2)
    answered = threading.Event()
    team = Workers("test", 1)
    team.submit(answered.wait)
    wait_until(lambda: not team._waiting)
    team.submit(answered.wait)
    team.submit(answered.wait)
    with pytest.raises(pool.TooMuchIsWaiting):
        team.submit(answered.wait)
    answered.set()
    assert team.drain(10)


@contextmanager
def no_threads() -> Iterator[None]:
    placement._start_anew()
    size = threading.stack_size(2**45)  # no system has room for such a stack
    try:
        yield
    finally:
        threading.stack_size(size)


@no_threads()
def test_where_no_thread_can_be_had_the_callers_transaction_is_left_alone(database: str) -> None:
    @llmcache.cached(ttl=60)
    def upper(text: str) -> str:
        return text.upper()

    connection = connections[database]
    with suppress(Undo), transaction.atomic(using=database):
        assert upper("a") == upper("a") == "A"
        assert connections[database] is connection
        raise Undo
    assert llmcache.flush()
    assert durable.entries().exists()
    assert not placement.runs_here()


def test_what_was_left_for_want_of_a_thread_is_written_by_the_next(database: str) -> None:
    with no_threads(), transaction.atomic(using=database):
        store.save(draft())
    placement.run(durable.entries().count)
    wait_until(durable.entries().exists)


async def test_where_no_thread_can_be_had_a_coroutine_has_its_answer() -> None:
    @llmcache.cached(ttl=60)
    async def upper(text: str) -> str:
        return text.upper()

    with no_threads(), llmcache.capture() as calls:
        assert await upper("a") == "A"
    assert not calls[0].stored


SCRIPT = """
import multiprocessing
import sys

METHOD, DATABASE, URL = sys.argv[1:]


def set_up():
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
        INSTALLED_APPS=["django.contrib.contenttypes", "llmcache"],
        LLMCACHE={"CACHE": None},
    )
    django.setup()


def ask_in_a_transaction():
    if METHOD in {"spawn", "forkserver"}:
        set_up()
    from django.contrib.contenttypes.models import ContentType
    from django.db import transaction
    from pydantic import BaseModel

    import llmcache

    Ticket = type("Ticket", (BaseModel,), {"__annotations__": {"title": str}})
    client = llmcache.from_provider("openai/gpt-4.1-mini", api_key="k", base_url=URL)
    with transaction.atomic():
        ContentType.objects.create(app_label="mine", model="mine")
        client.create(response_model=Ticket, messages=[{"role": "user", "content": "x"}])


if __name__ == "__main__":
    set_up()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    if METHOD == "fork with llmcache":
        import llmcache.usage.ledger
    if METHOD == "none":
        ask_in_a_transaction()
    else:
        from django.db import connections

        connections.close_all()
        context = multiprocessing.get_context(METHOD.split()[0])
        process = context.Process(target=ask_in_a_transaction)
        process.start()
        process.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "fork", "fork with llmcache", "forkserver", "spawn"])
def test_what_is_put_off_is_written_when_the_process_ends(
    model: StandIn, tmp_path: Path, method: str
) -> None:
    """A script on SQLite, or a child of it, whose last act is a call inside of a transaction."""
    database, script = tmp_path / "script.sqlite3", tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["-W", "ignore", str(script), method, str(database), model.url]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, *options], check=True, timeout=60, env=environment)
    with closing(sqlite3.connect(database)) as rows:
        assert rows.execute("SELECT count(*) FROM llmcache_cacheentry").fetchone() == (1,)
        assert rows.execute("SELECT sum(calls) FROM llmcache_usagehour").fetchone() == (1,)


def test_a_worker_of_celery_writes_what_was_put_off_before_it_ends() -> None:
    import llmcache.tasks  # noqa: F401 - connects the receiver

    written = placement._writers.submit(partial(time.sleep, 0.3))
    worker_process_shutdown.send(sender=None)
    assert written.done()
