"""The gate: whoever stores an answer holds it together with others, an invalidation alone.

A transaction that stores an answer checks that no invalidation has begun since the question was
asked, and commits only after that check. Were an invalidation to begin in between, neither would
see the other. It waits at the gate instead, for a moment, until all who are storing have committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import OperationalError, connections

from llmcache.background import transactions
from llmcache.background.database import LOCK_SECONDS

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

T = TypeVar("T")

# So often it is begun anew: of those who meet in a deadlock, one always goes on.
DEADLOCKS: Final = 5
# The name of the advisory locks: "llmc" and "gate" as numbers.
POSTGRESQL_LOCK: Final = (0x6C6C6D63, 0x67617465)


class Busy(Exception):
    """There is one writer, and it is another one."""


def shared(alias: str, statement: str) -> list[Any]:
    """Hold the gate until the transaction ends, and what `statement` selects then.

    Others who store may hold it too.
    """
    return _hold(alias, "pg_advisory_xact_lock_shared", "LOCK IN SHARE MODE", statement)


def alone(alias: str) -> None:
    """Hold the gate until the transaction ends, when nobody else holds it any more.

    The caller writes next: on SQLite, that is what waits until nobody else writes.
    """
    if connections[alias].vendor != "sqlite":
        _hold(alias, "pg_advisory_xact_lock", "FOR UPDATE", "SELECT 1")


def _hold(alias: str, function: str, row_lock: str, statement: str) -> list[Any]:
    vendor = connections[alias].vendor
    with connections[alias].cursor() as cursor:
        if vendor == "postgresql":
            return _hold_advisory_lock(alias, function, statement, cursor)
        if vendor == "sqlite":
            take_write_lock(alias)
        else:
            _hold_row(alias, row_lock if vendor == "mysql" else "FOR UPDATE", cursor)
        cursor.execute(statement)
        return list(cursor.fetchall())


def _hold_advisory_lock(alias: str, function: str, statement: str, cursor: Any) -> list[Any]:
    connection = connections[alias]
    timeout, (first, second) = f"'lock_timeout', '{LOCK_SECONDS}s', true", POSTGRESQL_LOCK
    lock = f"SELECT set_config({timeout}), {function}({first}, {second})"
    # What was committed while this waited has to be seen after it.
    if len(connection.atomic_blocks) == 1 and getattr(connection, "isolation_level", None):
        lock = f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {lock}"
    # (one round trip for all, which takes statements without parameters)
    cursor.execute(f"{lock}; {statement}")
    # Those of the last statement are wanted. (psycopg2 has no others.)
    while connection.Database.__name__ == "psycopg" and cursor.nextset():  # type: ignore[attr-defined]
        pass
    return list(cursor.fetchall())


def _hold_row(alias: str, row_lock: str, cursor: Any) -> None:
    rows = transactions.rows("WriteGate").using(alias)
    table = connections[alias].ops.quote_name(rows.model._meta.db_table)
    statement = f"SELECT id FROM {table} WHERE id = 1 {row_lock}"  # noqa: S608 - no input
    cursor.execute(statement)
    if cursor.fetchone() is None:
        # The first who comes by makes the row; a test may have emptied the table.
        rows.bulk_create([rows.model(pk=1)], ignore_conflicts=True)
        cursor.execute(statement)


def take_write_lock(alias: str) -> None:
    """Become the one writer of SQLite for the rest of the transaction, or wait for it.

    A transaction that has read, and only then writes, would fail at once if another has written
    in between.
    """
    transactions.rows("WriteGate").using(alias).filter(pk=0).update(id=0)


@contextmanager
def impatient(alias: str, seconds: float = 0.0) -> Iterator[None]:
    """Wait for the write lock of SQLite no longer than that, and raise `Busy` then."""
    connection = connections[alias]
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        [usual] = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        try:
            yield
        except OperationalError as error:
            if is_busy(error):
                raise Busy("another one is writing") from error
            raise
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(usual)}")


def past_deadlocks(work: Callable[[], T]) -> T:
    """Do `work`, a transaction, again where the database undid it so that others may go on."""
    return again(work, DEADLOCKS, lambda error: "deadlock" in str(error).lower())


def again(work: Callable[[], T], times: int, is_passing: Callable[[OperationalError], bool]) -> T:
    """Do `work`, and so often once more where it failed, and the error is passing."""
    for _ in range(times):
        try:
            return work()
        except OperationalError as error:
            if not is_passing(error):
                raise
    return work()


def is_busy(error: OperationalError) -> bool:
    """Whether SQLite says so because another one is writing."""
    return "is locked" in str(error)


def locked(rows: CacheEntryQuerySet, alias: str, skip: bool = False) -> CacheEntryQuerySet:
    """`rows`, which are locked when they are read, until the transaction ends.

    `skip` those that are locked, where the database can.
    """
    connection = connections[alias]
    if not connection.features.has_select_for_update:
        take_write_lock(alias)
        return rows
    if connection.vendor == "postgresql" and not skip:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_SECONDS}s"])
    can_skip = connection.features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=skip and can_skip)
