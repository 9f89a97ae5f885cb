"""The threads of the pool: bounded, replaced when stuck, and done without where there are none."""

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
from celery.signals import worker_process_shutdown
from django.db import connections, transaction

import llmcache
from llmcache import store
from llmcache.background import database as placement
from llmcache.background import pool, transactions
from llmcache.background.pool import Workers
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import Undo
from tests.support.entries import draft
from tests.support.waiting import cancel_after, wait_until


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
    for workers in placement.ALL:
        workers.pause()
        workers.resume()
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
