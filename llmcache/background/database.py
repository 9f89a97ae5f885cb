"""Where database work runs: on threads and connections of our own.

Not on the caller's connection. Inside the caller's transaction, a failing statement of ours would
abort it (PostgreSQL), a deadlock would roll it back (MariaDB), and a rollback would take answers
along that were paid for. Outside of one, a table that is locked or a server that does not answer
would hold the caller up for as long. On an event loop, all would stand still. And a thousand
threads that wait for one answer would hold a thousand connections.

So a few threads do the work, each with a connection of its own, and the caller waits for no more
than a moment. There are two exceptions. The transaction that `TestCase` and pytest-django open
around a test does not count as the caller's: work runs inside it, under a savepoint, and is rolled
back with the test. (What the test's other threads store is skipped: it would wait for what the
test has locked, and stay behind for the next test.) And a SQLite database in memory is seen by its
own connection only.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from llmcache.background import transactions
from llmcache.background.forks import now_and_in_children
from llmcache.background.pool import NoThread, Workers, carry_out
from llmcache.background.shutdown import at_exit
from llmcache.breakers import Use, is_up
from llmcache.exceptions import UnsupportedEventLoop
from llmcache.outcomes import Tier

T = TypeVar("T")

# A process holds at most so many connections for reading, and as many for writing.
POOL_THREADS: Final = 4
# So many let those go who wait at a tier. (At the hot tier, none needs a connection.)
TIER_THREADS: Final = 2
# A caller waits at most so long for something to be read, or to be written. What is written is
# written all the same, only later.
READ_SECONDS: Final = 0.5
WRITE_SECONDS: Final = 2.0
# Our own connections wait at most so long for a lock, where the server knows no other bound.
LOCK_SECONDS: Final = 5
# A connection that was idle for longer is asked whether it still is one.
IDLE_SECONDS: Final = 1.0
# What met a deadlock or a busy SQLite is tried so often, and given so long.
ATTEMPTS: Final = 8
PAUSE_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 30.0
# When the process ends, what is still to be written gets so long.
EXIT_SECONDS: Final = 10.0

# The connections of all threads, by their ids.
_opened: Final = WeakValueDictionary[int, BaseDatabaseWrapper]()


class HeldByATest(Exception):
    """Another thread is in a test's transaction."""


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
    connection = connections[transactions.database_alias()]
    if transactions.in_test_transaction(connection):
        with transaction.atomic(using=connection.alias):
            return work()
    if transactions.is_worker() or transactions.is_in_memory(connection):
        _leave_to_a_test(connection)
        return work()
    threads = _threads(connection, writing=writing, removing=removing)
    future = _submit_or_do(threads, connection.alias, work, writing=writing)
    try:
        return future.result(patience)
    finally:
        if not writing:
            future.cancel()


async def arun(
    work: Callable[[], T], *, patience: float | None = READ_SECONDS, writing: bool = False
) -> T:
    """`run` for a coroutine; the event loop goes on meanwhile."""
    if transactions.is_testing() and await sync_to_async(transactions.stays_here)():
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
    of the caller does it. Raises `UnsupportedEventLoop`.
    """
    running_loop()
    future: Future[T] | None = None
    with suppress(Exception):
        if not (transactions.is_testing() and await sync_to_async(transactions.stays_here)()):
            future = _submit(work)
    return await (sync_to_async(work)() if future is None else asyncio.wrap_future(future))


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that the caller runs on. Raises `UnsupportedEventLoop` where it is not asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UnsupportedEventLoop from None


def later(work: Callable[[], object], *, writing: bool = False) -> None:
    """Do database work some time soon, without waiting for it."""
    connection = connections[transactions.database_alias()]
    threads = _threads(connection, writing=writing)
    _submit_or_do(threads, connection.alias, work, writing=writing)


def runs_here() -> bool:
    """Whether `run` does its work on the caller's thread."""
    return transactions.is_worker() or transactions.stays_here()


def run_behind(work: Callable[[], object], *, tier: Tier = Tier.HOT) -> None:
    """`later` for what others wait for, and which `tier` alone can hold up."""
    alias = transactions.database_alias()
    _submit_or_do(_of_tiers[tier], alias, work, writing=tier is Tier.DURABLE)


def may_put_off() -> bool:
    """Whether work may be done `later`: a test runner's transaction would not have it."""
    return not transactions.is_testing()


def run_removal(work: Callable[[], T], *, patience: float | None = None) -> T:
    """`run` for a removal; in the caller's transaction, and undone with it, on SQLite."""
    if transactions.caller_is_the_writer():
        return work()
    return run(work, patience=patience, removing=True)


def persistently(work: Callable[[], T]) -> T:
    """Do `work` that writes, again where it met a deadlock or a busy SQLite.

    Raises what the database raises, after some attempts.
    """
    # A database whose circuit is open does not answer, or refuses: that is found out sooner.
    patience = PATIENCE_SECONDS if is_up(Tier.DURABLE) else WRITE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return run_removal(work, patience=patience)
        except OperationalError:
            if attempt == ATTEMPTS:
                raise
            # (two who met each other are not to meet again)
            time.sleep(random.uniform(0, attempt * PAUSE_SECONDS))  # noqa: S311 - no secret
    raise AssertionError("unreachable")


def _leave_to_a_test(connection: BaseDatabaseWrapper) -> None:
    """Raise `HeldByATest` where a thread of somebody's test has the database."""
    if not transactions.is_testing() or transactions.is_worker():
        return
    for each in filter(None, (reference() for reference in _opened.valuerefs())):
        if each.alias == connection.alias and transactions.in_test_transaction(each):
            raise HeldByATest


def _submit(work: Callable[[], T], *, writing: bool = False) -> Future[T]:
    connection = connections[transactions.database_alias()]
    threads = _threads(connection, writing=writing)
    return threads.submit(partial(_on_own_connection, connection.alias, work))


def _submit_or_do(
    workers: Workers, alias: str, work: Callable[[], T], *, writing: bool = False
) -> Future[T]:
    """Where no thread can be had (the interpreter ends), that of the caller does it."""
    own = partial(_on_own_connection, alias, work)
    try:
        if _left:
            _submit(_do_what_is_left, writing=True)
        return workers.submit(own)
    except NoThread:
        future: Future[T] = Future()
        job = partial(carry_out, future, partial(_beside_the_callers, own))
        may_write = not transactions.caller_is_the_writer()
        if may_write:
            _do_what_is_left()
        if may_write or not writing:
            job()
        else:
            _left.append(job)
        return future


def _do_what_is_left() -> None:
    while _left:
        with suppress(IndexError):  # (another thread had it)
            _left.popleft()()


def _beside_the_callers(work: Callable[[], T]) -> T:
    """Do `work` on this thread, but not on its connections, nor in their transactions."""
    was_worker, theirs = transactions.is_worker(), connections.all(initialized_only=True)
    for each in theirs:
        del connections[each.alias]
    try:
        return work()
    finally:
        try:
            connections.close_all()
        finally:
            transactions.this_thread.is_worker = was_worker
            for each in theirs:
                connections[each.alias] = each


def _threads(
    connection: BaseDatabaseWrapper, *, writing: bool = False, removing: bool = False
) -> Workers:
    """What may have to wait for a lock, or for a server, keeps nobody from reading."""
    if not removing:
        _leave_to_a_test(connection)
    if connection.vendor != "sqlite":
        return _writers if writing or removing else _workers
    # Where there is one writer only, one thread writes: no two of ours wait for each other.
    return _writer if writing else _workers


def past_a_cut(work: Callable[[], T]) -> T:
    """Do `work`, which reads, once more where a connection of ours turned out to be cut."""
    connection = connections[transactions.database_alias()]
    was_open = connection.connection is not None
    try:
        return work()
    except (OperationalError, InterfaceError):
        if not (was_open and transactions.is_worker()):
            raise
        if connection.connection is not None and connection.is_usable():
            raise
    connection.close()
    return work()


def _on_own_connection(alias: str, work: Callable[[], T]) -> T:
    transactions.this_thread.is_worker = True
    if time.monotonic() - getattr(transactions.this_thread, "used", 0.0) > IDLE_SECONDS:
        _close_if_gone(connections[alias])
    try:
        return work()
    finally:
        transactions.this_thread.used = time.monotonic()
        for own in connections.all(initialized_only=True):
            if own.errors_occurred or not _may_stay_open(own):
                own.close()


def _close_if_gone(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that the server may have closed while nobody used it."""
    # (while the circuit of the database is open, the work is another one, and must not wait for it)
    may_ask = connection.connection is not None and is_up(Tier.DURABLE, Use.READ)
    if may_ask and not connection.is_usable():
        connection.close()


def _prepare(connection: BaseDatabaseWrapper, **_: Any) -> None:
    _opened[id(connection)] = connection
    # MariaDB and MySQL would wait 50 seconds for a row's lock, and a day for a table's.
    if transactions.is_worker() and connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s",
                [LOCK_SECONDS, LOCK_SECONDS],
            )


def _may_stay_open(connection: BaseDatabaseWrapper) -> bool:
    """Not under a test runner, which could not drop the database; nor when it is from a pool."""
    return not transactions.is_testing() and not connection.settings_dict["OPTIONS"].get("pool")


def finish(seconds: float = EXIT_SECONDS) -> bool:
    """Wait until what was acknowledged as written later is written; whether it is, in time."""
    ends = time.monotonic() + seconds
    _do_what_is_left()
    are_done = [workers.drain(max(0.0, ends - time.monotonic())) for workers in ALL]
    return all(are_done)


# What no thread could be had for, in a transaction of the only writer's: for the next who can.
_left: Final = deque[Callable[[], object]]()
_workers: Final = Workers("rows", POOL_THREADS)
_of_tiers: Final = {
    tier: Workers(f"work {tier}", TIER_THREADS) for tier in (Tier.HOT, Tier.DURABLE)
}
_writers: Final = Workers("writers", POOL_THREADS)
_writer: Final = Workers("writer", 1)
ALL: Final = (_writer, _writers, _workers, *_of_tiers.values())
now_and_in_children(_left.clear)
at_exit(finish)
connection_created.connect(_prepare)
