"""Where database work runs: on threads and connections of our own.

Not on the caller's connection. Inside the caller's transaction, a failing statement of ours would
abort it (PostgreSQL), a deadlock would roll it back (MariaDB), and a rollback would take answers
along that were paid for. Outside of one, a table that is locked or a server that does not answer
would hold the caller up for as long. On an event loop, all would stand still. And a thousand
threads that wait for one answer would hold a thousand connections.

So a few threads do the work, each with a connection of its own, and the caller waits for no more
than a moment. There are two exceptions. The transaction that `TestCase` and pytest-django open
around a test does not count as the caller's: work runs inside it, under a savepoint, and is rolled
back with the test. And a SQLite database in memory is seen by its own connection only.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.store.breaker import is_up
from llmcache.store.exits import at_exit
from llmcache.store.workers import Workers

T = TypeVar("T")

# A process holds at most so many connections for reading, and as many for writing.
POOL_THREADS: Final = 4
# So many let those go who wait at a tier. (At the hot tier, none needs a connection.)
ERRAND_THREADS: Final = 2
# A caller waits at most so long for something to be read, or to be written. What is written is
# written all the same, only later.
READ_SECONDS: Final = 0.5
WRITE_SECONDS: Final = 2.0
# A coroutine waits at most so long for the thread that has its transaction, which may be busy.
HOP_SECONDS: Final = 0.2
# Our own connections wait at most so long for a lock, where the server knows no other bound.
LOCK_SECONDS: Final = 5
# A connection that was idle for longer is asked whether it still is one.
IDLE_SECONDS: Final = 1.0
# When the process ends, what is still to be written gets so long.
EXIT_SECONDS: Final = 10.0
# A fork waits at most so long for work that is under way.
FORK_SECONDS: Final = 1.0


def database_alias() -> str:
    """The alias of the database that holds the rows."""
    return settings.database or router.db_for_write(apps.get_model("llmcache", "CacheEntry"))


def database_name() -> object:
    """What the database that holds the rows is called on its server, or its file."""
    return connections[database_alias()].settings_dict["NAME"]


def run(
    work: Callable[[], T],
    *,
    patience: float | None = READ_SECONDS,
    writing: bool = False,
    removing: bool = False,
) -> T:
    """Do database work for a synchronous caller, who waits at most `patience` seconds for it.

    None: until it is done. Raises `TimeoutError` after that; what was to be read or removed is then
    not any more, what was to be written is.
    """
    connection = connections[database_alias()]
    if _in_test_transaction(connection):
        return _under_savepoint(connection, work)
    if runs_here():
        return work()
    future = _submit(work, writing=writing, removing=removing)
    try:
        return future.result(patience)
    finally:
        if not writing:
            future.cancel()


async def arun(
    work: Callable[[], T], *, patience: float | None = READ_SECONDS, writing: bool = False
) -> T:
    """`run` for a coroutine; the event loop goes on meanwhile."""
    if _testing() and await sync_to_async(stays_here)():
        return await sync_to_async(run)(work)
    future = asyncio.wrap_future(_submit(work, writing=writing))
    return await _result_of(asyncio.shield(future) if writing else future, patience)


async def _result_of(future: asyncio.Future[T], seconds: float | None) -> T:
    """`asyncio.wait_for`, but that of Python 3.11 forgets to be cancelled when a result has come.

    (Newer ones forget a result that came in time, when the loop was too busy to see it.)
    """
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        if future.done() and not future.cancelled():
            return future.result()
        raise


async def arun_to_the_end(work: Callable[[], T]) -> T:
    """`arun` for work that says by itself what is wrong with the database.

    Where no thread of ours can be had for it (there is no such database, or too much waits), that
    of the caller does it.
    """
    future: Future[T] | None = None
    with suppress(Exception):
        if not (_testing() and await sync_to_async(stays_here)()):
            future = _submit(work, writing=False)
    return await (sync_to_async(work)() if future is None else asyncio.wrap_future(future))


def later(work: Callable[[], object], *, writing: bool = False) -> None:
    """Do database work some time soon, without waiting for it."""
    _submit(work, writing=writing)


def runs_here() -> bool:
    """Whether `run` does its work on the caller's thread."""
    return _is_worker() or stays_here()


def run_errand_later(work: Callable[[], object], *, tier: Tier = Tier.HOT) -> None:
    """`later` for what others wait for, and which `tier` alone can hold up."""
    _errands[tier].submit(lambda: _on_own_connection(work))


def may_put_off() -> bool:
    """Whether work may be done `later`: a test runner's transaction would not have it."""
    return not _testing()


def run_removal(work: Callable[[], T], *, patience: float | None = None) -> T:
    """`run` for a removal; in the caller's transaction, and undone with it, on SQLite."""
    return work() if caller_is_the_writer() else run(work, patience=patience, removing=True)


def caller_is_the_writer() -> bool:
    """Whether the caller is in a transaction of a database that allows one writer (SQLite).

    Waiting for a write of ours would then be waiting for ourselves.
    """
    connection = connections[database_alias()]
    return (
        connection.vendor == "sqlite"
        and not _is_free(connection)
        and not _in_test_transaction(connection)
        and not _is_worker()
        and not _is_in_memory(connection)
    )


async def acaller_is_the_writer() -> bool:
    """`caller_is_the_writer` for a coroutine: a transaction around it is of the thread behind it.

    That is the thread that called `async_to_sync`, or on which `sync_to_async` runs. Only SQLite
    takes the way there. False when that thread is busy, or gone, or there is no such database.
    """
    with suppress(Exception):
        if connections[database_alias()].vendor == "sqlite":
            async with asyncio.timeout(HOP_SECONDS):
                return await sync_to_async(caller_is_the_writer)()
    return False


def _is_free(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and (
        connection.connection is None or connection.get_autocommit()
    )


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    return connection.vendor == "sqlite" and connection.is_in_memory_db()  # type: ignore[attr-defined]


def _in_test_transaction(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _testing() -> bool:
    """Whether `setup_test_environment` has been called, as every test runner of Django does."""
    test_utils = sys.modules.get("django.test.utils")
    state = getattr(test_utils, "_TestState", None)
    return hasattr(state, "saved_data")


def will_be_undone() -> bool:
    """Whether this is in a test's transaction, which is rolled back with all that it stored."""
    return _testing() and _in_test_transaction(connections[database_alias()])


def stays_here() -> bool:
    """Whether work runs on the caller's connection: in a test's transaction, or in memory."""
    connection = connections[database_alias()]
    return _in_test_transaction(connection) or _is_in_memory(connection)


def _under_savepoint(connection: BaseDatabaseWrapper, work: Callable[[], T]) -> T:
    with transaction.atomic(using=connection.alias):
        return work()


def _submit(work: Callable[[], T], *, writing: bool, removing: bool = False) -> Future[T]:
    return _threads_for(writing, removing).submit(lambda: _on_own_connection(work))


def _threads_for(writing: bool, removing: bool) -> Workers:
    """What may have to wait for a lock, or for a server, keeps nobody from reading."""
    if connections[database_alias()].vendor != "sqlite":
        return _writers if writing or removing else _workers
    # Where there is one writer only, one thread writes: no two of ours wait for each other.
    return _writer if writing else _workers


def _is_worker() -> bool:
    return getattr(_thread, "is_worker", False)


def _on_own_connection(work: Callable[[], T]) -> T:
    _thread.is_worker = True
    connection = connections[database_alias()]
    _close_if_gone(connection)
    try:
        return work()
    finally:
        _thread.used = time.monotonic()
        for own in connections.all(initialized_only=True):
            if own.errors_occurred or not _may_stay_open(own):
                own.close()


def _close_if_gone(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that the server has closed while nobody used it."""
    idle = time.monotonic() - getattr(_thread, "used", 0.0)
    # (while the database is given a rest, the work is another one, and must not wait for it)
    may_ask = connection.connection is not None and is_up(Tier.DURABLE)
    if idle > IDLE_SECONDS and may_ask and not connection.is_usable():
        connection.close()


def _bound_waiting(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """MariaDB and MySQL would wait 50 seconds for a row's lock, and a day for a table's."""
    if _is_worker() and connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s",
                [LOCK_SECONDS, LOCK_SECONDS],
            )


def _may_stay_open(connection: BaseDatabaseWrapper) -> bool:
    """Not under a test runner, which could not drop the database; nor when it is from a pool."""
    return not _testing() and not connection.settings_dict["OPTIONS"].get("pool")


_thread = threading.local()


def _part() -> None:
    """Before a fork: a connection that both processes had would be closed by the first to end.

    And the libraries of databases have locks of their own. One that a thread holds at that moment
    (SQLite's, while it opens a file) would stay locked in the child for ever.
    """
    for workers in _all():
        workers.pause(FORK_SECONDS)


def _go_on() -> None:
    """After a fork, in the parent."""
    for workers in _all():
        workers.resume()


def _start_anew() -> None:
    """At the start, and in a forked child, which has none of the threads."""
    global _workers, _writers, _writer, _errands
    _workers = Workers("rows", POOL_THREADS, leave=connections.close_all)
    _errands = {
        tier: Workers(f"errands {tier}", ERRAND_THREADS, leave=connections.close_all)
        for tier in (Tier.HOT, Tier.DURABLE)
    }
    _writers = Workers("writers", POOL_THREADS, leave=connections.close_all)
    _writer = Workers("writer", 1, leave=connections.close_all)


def _all() -> tuple[Workers, ...]:
    return _writer, _writers, _workers, *_errands.values()


def finish() -> None:
    """What was acknowledged as written later is written before the process ends."""
    ends = time.monotonic() + EXIT_SECONDS
    for workers in _all():
        workers.drain(max(0.0, ends - time.monotonic()))


_workers: Workers
_errands: dict[Tier, Workers]
_writers: Workers
_writer: Workers
_start_anew()
os.register_at_fork(before=_part, after_in_parent=_go_on, after_in_child=_start_anew)
at_exit(finish)
connection_created.connect(_bound_waiting)
