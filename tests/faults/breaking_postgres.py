"""What can happen to PostgreSQL. Each breaks it inside the block, and mends it after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tests.faults.breaking_redis import again_and_again
from tests.support.servers import PostgreSQLServer

# How the sessions made here are told from those of the cache.
OURS = "the test"

TERMINATE_OTHERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    f"WHERE backend_type = 'client backend' AND application_name <> '{OURS}'"
)


@contextmanager
def backends_terminated(server: PostgreSQLServer) -> Iterator[None]:
    """All connections are closed from the server's side, several times a second."""
    with (
        told(server) as session,
        again_and_again(lambda: session.execute(TERMINATE_OTHERS), every=0.2),
    ):
        yield


@contextmanager
def stopped(server: PostgreSQLServer) -> Iterator[None]:
    """It is shut down, and started again."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def paused(server: PostgreSQLServer) -> Iterator[None]:
    """It accepts connections and never answers (SIGSTOP)."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def table_locked(server: PostgreSQLServer) -> Iterator[None]:
    """Another session holds the table of the entries alone (ACCESS EXCLUSIVE), as migrations do."""
    with told(server) as session, session.transaction():
        session.execute("LOCK TABLE llmcache_cacheentry IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def full(server: PostgreSQLServer) -> Iterator[None]:
    """Others hold all connections that it allows (max_connections)."""
    taken: list[psycopg.Connection] = []

    def take_all() -> None:
        # Those that the cache still has are ended, and taken before it has them back.
        session.execute(TERMINATE_OTHERS)
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(_connect(server))

    with told(server) as session:
        try:
            with again_and_again(take_all, every=0.2):
                yield
        finally:
            for connection in taken:
                connection.close()


@contextmanager
def read_only(server: PostgreSQLServer) -> Iterator[None]:
    """It refuses to write (default_transaction_read_only), as after a switch to a replica."""
    with told(server) as session:
        session.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        session.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            session.execute("ALTER SYSTEM RESET default_transaction_read_only")
            session.execute("SELECT pg_reload_conf()")


@contextmanager
def told(server: PostgreSQLServer) -> Iterator[psycopg.Connection]:
    """A session of an operator."""
    with _connect(server) as session:
        yield session


def _connect(server: PostgreSQLServer) -> psycopg.Connection:
    return psycopg.connect(server.url, autocommit=True, application_name=OURS)
