"""What one process removes, another one that was serving it serves no more, whatever comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.faults import sites
from tests.faults.children import Child, prepare
from tests.faults.knowing import QUESTIONS, obey
from tests.faults.sites import Site
from tests.support.servers import PostgreSQLServer, RedisServer, require
from tests.support.waiting import wait_until

SERVED = len(QUESTIONS) * 3
REMOVALS = [("invalidate", "keys"), ("invalidate", "everything"), ("delete", "ORM")]


@pytest.fixture(params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Site:
    """Rows on each database, and hot copies on a Redis of this test's own."""
    if request.param == "sqlite":
        return prepare(sites.on_sqlite(server.url, tmp_path))
    postgres: PostgreSQLServer = request.getfixturevalue("postgres")
    return prepare(sites.on_postgres(postgres, server.url, tmp_path))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer("--save", "3600 1000000") as redis:
        yield redis


@pytest.fixture
def others(site: Site) -> Iterator[list[Child]]:
    """Two that are serving hits, and a fork of one that was."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(site, obey)) for _ in range(2)]
        # (other tests have their rows in the same database)
        ask(children[0], "invalidate", "everything")
        assert all(ask(child, "warm") for child in children)
        children.append(stack.enter_context(Child(site, obey, forked=True)))
        assert children[-1].hear()
        yield children


@pytest.fixture
def remover(site: Site) -> Iterator[Child]:
    with Child(site, obey) as child:
        yield child


def ask(child: Child, *order: Any) -> Any:
    child.tell(order)
    return child.hear()


def remove(child: Child, how: tuple[str, str]) -> None:
    done = ask(child, *how)
    if how[0] == "invalidate":
        assert done == (len(QUESTIONS), ())


def operator(server: RedisServer) -> Any:
    return Redis(port=server.port)


@pytest.mark.parametrize("how", [*REMOVALS, ("delete", "flush")], ids=" ".join)
def test_what_another_process_removes(others: list[Child], remover: Child, how: Any) -> None:
    remove(remover, how)
    assert [ask(each, "look") for each in others] == [[None] * SERVED] * len(others)


@pytest.mark.parametrize("how", REMOVALS, ids=" ".join)
def test_with_a_snapshot_that_comes_back(
    server: RedisServer, others: list[Child], remover: Child, how: Any
) -> None:
    operator(server).save()
    remove(remover, how)
    server.kill()
    server.start()
    assert operator(server).dbsize() >= len(QUESTIONS)
    for each in [others[0], remover, *others]:
        assert ask(each, "look") == [None] * SERVED
    assert ask(others[0], "warm")
    assert set(ask(others[1], "look")) <= {"hot", "durable"}


def test_with_a_replica_that_missed_it(
    server: RedisServer, others: list[Child], remover: Child
) -> None:
    with RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica:
        # (marks of leases vanish meanwhile)
        wait_until(lambda: operator(replica).dbsize() == operator(server).dbsize())
        operator(replica).replicaof("no", "one")
        remove(remover, ("invalidate", "keys"))
        server.kill()
        operator(replica).config_set("port", server.port)
        for _ in range(2):
            assert [ask(each, "look") for each in others] == [[None] * SERVED] * len(others)
