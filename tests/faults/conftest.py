"""The servers that the tests of this directory may break, and where processes find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.faults import sites
from tests.faults.children import prepare
from tests.faults.sites import Site
from tests.support.servers import MariaDBServer, PostgreSQLServer, RedisServer, Server, require

AnyServer = TypeVar("AnyServer", bound=Server)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    yield from _running(RedisServer())


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQLServer]:
    # (few connections are soon taken)
    yield from _running(PostgreSQLServer("-c", "max_connections=60"))


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    yield from _running(MariaDBServer())


@pytest.fixture(scope="session")
def on_postgres(
    postgres: PostgreSQLServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Rows on PostgreSQL and hot copies on Redis."""
    return prepare(sites.on_postgres(postgres, redis.url, tmp_path_factory.mktemp("postgres")))


@pytest.fixture(scope="session")
def on_mariadb(
    mariadb: MariaDBServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Rows on MariaDB and hot copies on Redis."""
    return prepare(sites.on_mariadb(mariadb, redis.url, tmp_path_factory.mktemp("mariadb")))


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Rows on SQLite, and no hot tier."""
    return prepare(sites.on_sqlite(None, tmp_path_factory.mktemp("sqlite")))


def _running(server: AnyServer) -> Iterator[AnyServer]:
    require(type(server))
    with server:
        yield server
