"""Each fault under a mixed load: no caller sees an error or a wrong answer, nobody stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.faults import (
    breaking_mariadb,
    breaking_postgres,
    breaking_redis,
    breaking_sqlite,
    report,
    sites,
)
from tests.faults.children import prepare
from tests.faults.extent import extent
from tests.faults.load import Load, Tally
from tests.faults.proxy import Proxy
from tests.faults.sites import Site
from tests.support.servers import MariaDBServer, PostgreSQLServer, RedisServer

FAULT_SECONDS = extent(1.5, 60.0)
# Before it breaks, and after it is mended.
HEALTHY_SECONDS = extent(0.3, 2.0)
HELD_SECONDS = extent(3.0, 30.0)

Fault = Callable[..., AbstractContextManager[None]]

OF_REDIS = [
    breaking_redis.stopped,
    breaking_redis.killed,
    breaking_redis.flushed,
    breaking_redis.out_of_memory,
    breaking_redis.read_only,
    breaking_redis.paused,
]
OF_THE_WAY_TO_REDIS = [breaking_redis.slow, breaking_redis.cut_off]
OF_POSTGRES = [
    breaking_postgres.backends_terminated,
    breaking_postgres.stopped,
    breaking_postgres.paused,
    breaking_postgres.table_locked,
    breaking_postgres.full,
    breaking_postgres.read_only,
]
OF_MARIADB = [breaking_mariadb.deadlocked, breaking_mariadb.locked]


@pytest.fixture(scope="module")
def load(on_postgres: Site) -> Iterator[Load]:
    with Load(on_postgres) as load:
        yield load


@pytest.fixture(scope="module")
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def load_through_proxy(
    postgres: PostgreSQLServer, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Load]:
    site = sites.on_postgres(postgres, proxy.url, tmp_path_factory.mktemp("proxy"))
    with Load(prepare(site)) as load:
        yield load


def each(faults: Sequence[Fault]) -> Any:
    return pytest.mark.parametrize("fault", faults, ids=[fault.__name__ for fault in faults])


def endure(
    load: Load, server: str, fault: Fault, victim: Any, seconds: float = FAULT_SECONDS
) -> Tally:
    """Load before, during and after the fault; what the callers saw."""
    with load() as tally:
        time.sleep(HEALTHY_SECONDS)
        with fault(victim):
            time.sleep(seconds)
        time.sleep(HEALTHY_SECONDS)
    what = (fault.__doc__ or "").strip().partition("\n")[0]
    report.record("faults", server=server, fault=what, seconds=seconds, **tally.figures())
    tally.check()
    return tally


def test_nothing_broken(load: Load) -> None:
    """What the others are to be compared with."""
    with load() as tally:
        time.sleep(FAULT_SECONDS)
    report.record("faults", server="–", fault="Nothing.", seconds=FAULT_SECONDS, **tally.figures())
    tally.check()
    assert tally.outcomes["hit hot"]


@each(OF_REDIS)
def test_redis(load: Load, redis: RedisServer, fault: Fault) -> None:
    endure(load, "Redis", fault, redis)


@each(OF_THE_WAY_TO_REDIS)
def test_way_to_redis(load_through_proxy: Load, proxy: Proxy, fault: Fault) -> None:
    endure(load_through_proxy, "Redis", fault, proxy)


@each(OF_POSTGRES)
def test_postgres(load: Load, postgres: PostgreSQLServer, fault: Fault) -> None:
    endure(load, "PostgreSQL", fault, postgres)


@each(OF_MARIADB)
def test_mariadb(on_mariadb: Site, mariadb: MariaDBServer, fault: Fault) -> None:
    with Load(on_mariadb) as load:
        endure(load, "MariaDB", fault, mariadb)


def test_sqlite(on_sqlite: Site) -> None:
    with Load(on_sqlite) as load:
        fault, path = breaking_sqlite.held, sites.sqlite_file(on_sqlite)
        endure(load, "SQLite", fault, path, HELD_SECONDS)
