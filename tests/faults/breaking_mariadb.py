"""What other sessions can do to the transactions of the cache on MariaDB."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from tests.faults.breaking_redis import again_and_again
from tests.support.servers import MariaDBServer

# A transaction that has changed more rows than the other is not the one that InnoDB rolls back.
ROWS_OF_WEIGHT = 300
DEADLOCK = 1213


class Refused(Exception):
    """The server did not do it; `code` says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def deadlocked(server: MariaDBServer) -> Iterator[None]:
    """Another session takes the locks of the cache in the opposite order, again and again (1213).

    Fails when no deadlock came of it.
    """
    with told(server) as session, told(server) as adversary:
        adversary("CREATE TABLE IF NOT EXISTS weight (id INT AUTO_INCREMENT PRIMARY KEY)")
        before = _deadlocks(session)
        with again_and_again(lambda: _cross(adversary), every=0.01):
            yield
        assert _deadlocks(session) > before, "no deadlock was provoked"


@contextmanager
def locked(server: MariaDBServer) -> Iterator[None]:
    """Another session holds all rows, for longer than anybody waits for a lock (1205)."""
    with told(server) as session, told(server) as holder:
        session("SET GLOBAL innodb_lock_wait_timeout = 1")
        _hold_all(holder)
        try:
            yield
        finally:
            holder("ROLLBACK")
            session("SET GLOBAL innodb_lock_wait_timeout = 50")


def _hold_all(tell: Any) -> None:
    """Lock all rows; whoever is the victim of a deadlock over that has to try again."""
    while True:
        tell("BEGIN")
        try:
            tell("SELECT id FROM llmcache_cacheentry FOR UPDATE")
        except Refused as error:
            if error.code != DEADLOCK:
                raise
        else:
            return


@contextmanager
def told(server: MariaDBServer) -> Iterator[Any]:
    """A session of an operator: a function that executes, and returns the rows, or is `Refused`."""
    import MySQLdb  # which is not everywhere

    connection = MySQLdb.connect(
        host="127.0.0.1", port=server.port, user="root", db="test", autocommit=True
    )
    with closing(connection):

        def tell(sql: str) -> Any:
            try:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(sql)
                    return cursor.fetchall()
            except MySQLdb.OperationalError as error:
                raise Refused(*error.args) from error

        yield tell


def _cross(tell: Any) -> None:
    """Lock tags and then entries; whoever stores an answer locks the entry and then its tags."""
    with suppress(Refused):
        tell("BEGIN")
        tell(f"INSERT INTO weight SELECT NULL FROM seq_1_to_{ROWS_OF_WEIGHT}")
        tell("SELECT id FROM llmcache_entrytag FOR UPDATE")
        time.sleep(0.02)
        tell("SELECT id FROM llmcache_cacheentry FOR UPDATE")
    tell("ROLLBACK")


def _deadlocks(tell: Any) -> int:
    [(_, count)] = tell("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    return int(count)
