"""Where database work runs: on the caller's connection, or on a thread and connection of our own.

On the caller's connection it may run while that is in autocommit. Not inside the caller's
transaction: a failing statement of ours would abort it (PostgreSQL), a deadlock would roll it
back (MariaDB), and a rollback would take answers along that were paid for. And not on an event
loop: it would stand still. Then the work goes to a small pool of threads, each with connections
of its own.

The transaction that `TestCase` and pytest-django open around a test does not count as the
caller's: work runs inside it, under a savepoint, and is rolled back with the test.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from llmcache.conf import settings

T = TypeVar("T")

# A process holds at most so many connections for coroutines and for work beside transactions.
POOL_THREADS: Final = 4
# A coroutine, or a caller inside a transaction, waits at most so long for work on such a thread.
PATIENCE_SECONDS: Final = 10.0
# A connection that was idle for longer is asked whether it still is one.
IDLE_SECONDS: Final = 1.0


def database_alias() -> str:
    """The alias of the database that holds the rows."""
    return settings.database or router.db_for_write(apps.get_model("llmcache", "CacheEntry"))


def database_name() -> object:
    """What the database that holds the rows is called on its server, or its file."""
    return connections[database_alias()].settings_dict["NAME"]


def run(work: Callable[[], T]) -> T:
    """Run database work for a synchronous caller and wait for it."""
    connection = connections[database_alias()]
    if _in_test_transaction(connection):
        return _under_savepoint(connection, work)
    if _is_free(connection) and not _on_event_loop():
        return work()
    return _submit(work).result(PATIENCE_SECONDS)


def put_off(work: Callable[[], object]) -> None:
    """Run a write when the caller's transaction has ended, without waiting for it.

    SQLite allows one writer. Inside a transaction the caller may be it, and waiting for our
    write would be waiting for ourselves: the write is left to a thread of its own, which waits
    for the lock, and keeps nobody else from looking up.
    """
    _pool("put off", threads=1).submit(_on_own_connection, work)


def run_removal(work: Callable[[], T]) -> T:
    """`run` for a removal; in the caller's transaction, and undone with it, on SQLite."""
    return work() if caller_is_the_writer() else run(work)


def caller_is_the_writer() -> bool:
    """Whether the caller is in a transaction of a database that allows one writer (SQLite)."""
    connection = connections[database_alias()]
    return (
        connection.vendor == "sqlite"
        and not _is_free(connection)
        and not _in_test_transaction(connection)
    )


async def arun(work: Callable[[], T], *, bounded: bool = True) -> T:
    """Run database work for a coroutine; the event loop goes on meanwhile.

    `bounded`: wait no longer than a call may be held up. What has to be done to its end is not.
    """
    if _testing() and await sync_to_async(_test_transaction_open)():
        return await sync_to_async(run)(work)
    patience = PATIENCE_SECONDS if bounded else None
    return await asyncio.wait_for(asyncio.wrap_future(_submit(work)), patience)


def later(work: Callable[[], object]) -> None:
    """Run database work some time soon, without waiting for it."""
    _submit(work)


def _is_free(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and (
        connection.connection is None or connection.get_autocommit()
    )


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_test_transaction(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _testing() -> bool:
    """Whether `setup_test_environment` has been called, as every test runner of Django does."""
    test_utils = sys.modules.get("django.test.utils")
    state = getattr(test_utils, "_TestState", None)
    return hasattr(state, "saved_data")


def _test_transaction_open() -> bool:
    return _in_test_transaction(connections[database_alias()])


def _under_savepoint(connection: BaseDatabaseWrapper, work: Callable[[], T]) -> T:
    with transaction.atomic(using=connection.alias):
        return work()


def _submit(work: Callable[[], T]) -> Future[T]:
    return _pool("beside", threads=POOL_THREADS).submit(_on_own_connection, work)


def _on_own_connection(work: Callable[[], T]) -> T:
    _close_if_gone(connections[database_alias()])
    try:
        return work()
    finally:
        _used.at = time.monotonic()
        # A broken connection is thrown away; a good one stays open for the next work. Under a
        # test runner it may not stay: the test database could not be dropped.
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred or _testing():
                connection.close()


_used = threading.local()


def _close_if_gone(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that the server has closed while nobody used it."""
    idle = time.monotonic() - getattr(_used, "at", 0.0)
    if idle > IDLE_SECONDS and connection.connection is not None and not connection.is_usable():
        connection.close()


_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}


def _pool(name: str, *, threads: int) -> ThreadPoolExecutor:
    # By process: threads do not survive a fork, and the pool of the parent is dead in the child.
    key = os.getpid(), name
    pool = _pools.get(key)
    if pool is None:
        prefix = f"llmcache {name}"
        pool = _pools.setdefault(key, ThreadPoolExecutor(threads, thread_name_prefix=prefix))
    return pool
