"""What cannot be written is still read, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connections

import llmcache
from llmcache import breakers, store
from llmcache.background import database as placement
from llmcache.breakers import FAILURES, Use
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import attempt
from llmcache.store import evictions
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from project.standin.server import StandIn
from tests.support.backends import Backend, backend_parameters
from tests.support.clients import make_client
from tests.support.copies import write_copy
from tests.support.entries import (
    KEY,
    draft,
    look_up,
)
from tests.support.health import status
from tests.support.servers import RedisServer
from tests.support.ticket import Ticket
from tests.support.waiting import wait_until

THEIRS = ["default", "postgres", "mariadb"]


def ask(client: Any, question: str) -> str:
    """The outcome of one call."""
    message = {"role": "user", "content": question}
    with llmcache.capture() as calls:
        client.create(response_model=Ticket, messages=[message])
    return str(calls[0].outcome)


def fail(error: Exception) -> None:
    raise error


# Rows that can be read only


@contextmanager
def read_only_postgres(alias: str) -> Iterator[None]:
    name = connections[alias].settings_dict["NAME"]
    with connections[alias].cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        cut_off_all_others(alias)
    try:
        yield
    finally:
        with connections[alias].cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        cut_off_all_others(alias)


def cut_off_all_others(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        cursor.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")


@contextmanager
def read_only_mariadb(alias: str) -> Iterator[None]:
    """As who may not write: to the administrator, `read_only` does not apply."""
    parameters = connections.settings[alias]
    original = dict(parameters)
    with connections[alias].cursor() as cursor:
        for host in ("'%'", "localhost"):
            cursor.execute(f"CREATE OR REPLACE USER site@{host} IDENTIFIED BY 'site'")
            cursor.execute(f"GRANT ALL ON `{original['NAME']}`.* TO site@{host}")
        cursor.execute("SET GLOBAL read_only = 1")
    connections[alias].close()
    parameters.update(USER="site", PASSWORD="site")
    try:
        yield
    finally:
        connections[alias].close()
        parameters.update(original)
        with connections[alias].cursor() as cursor:
            cursor.execute("SET GLOBAL read_only = 0")


@contextmanager
def read_only_sqlite(alias: str) -> Iterator[None]:
    """A file that is opened for reading: who runs as root could write any."""
    parameters = connections.settings[alias]
    original = dict(parameters)
    connections[alias].close()
    parameters["NAME"] = f"file:{original['NAME']}?mode=ro"
    parameters["OPTIONS"] = {"uri": True, "timeout": 1}
    try:
        yield
    finally:
        connections[alias].close()
        parameters.update(original)


READ_ONLY: dict[str, Callable[[str], Any]] = {
    "default": read_only_sqlite,
    "postgres": read_only_postgres,
    "mariadb": read_only_mariadb,
}


@pytest.mark.usefixtures("_closed")
@pytest.mark.parametrize("backend", backend_parameters(THEIRS, [None]), indirect=True)
def test_rows_are_served_while_they_cannot_be_written(backend: Backend, model: StandIn) -> None:
    client = make_client(model)
    stored = [f"What is stored, no. {number}?" for number in range(3)]
    for question in stored:
        assert ask(client, question) == "miss"
    with READ_ONLY[backend.database](backend.database):
        for number in range(FAILURES + 2):
            assert ask(client, f"What is new, no. {number}?") == "miss"
            assert [ask(client, question) for question in stored] == ["hit"] * 3
        wait_until(lambda: not breakers.is_up(Tier.DURABLE, Use.WRITE))
        assert breakers.is_up(Tier.DURABLE, Use.READ)
        assert [ask(client, question) for question in stored] == ["hit"] * 3
        assert "it cannot be written" in status(fails=True)["durable"]["error"]
    wait_until(lambda: breakers.is_up(Tier.DURABLE))
    assert ask(client, "What is new again?") == "miss"
    assert ask(client, "What is new again?") == "hit"


@pytest.mark.usefixtures("_closed")
def test_what_cannot_be_read_is_still_written(transactional_db: None) -> None:
    for _ in range(FAILURES):
        attempt(Tier.DURABLE, "read", partial(fail, OperationalError("no answer")))
    assert not breakers.is_up(Tier.DURABLE, Use.READ)
    assert breakers.is_up(Tier.DURABLE, Use.WRITE)
    assert store.save(draft()) is None
    wait_until(lambda: breakers.is_up(Tier.DURABLE, Use.READ))
    assert isinstance(look_up(), Found)


@pytest.mark.usefixtures("_closed")
def test_what_cannot_be_written_is_tried_until_it_can(transactional_db: None) -> None:
    for _ in range(FAILURES):
        attempt(Tier.DURABLE, "write", partial(fail, OperationalError("no room")))
    assert not breakers.is_up(Tier.DURABLE, Use.WRITE)
    wait_until(lambda: breakers.is_up(Tier.DURABLE, Use.WRITE))


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], [None]), indirect=True
)
def test_a_lookup_on_a_connection_that_was_cut_is_done_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_may_stay_open", lambda connection: True)
    assert store.save(draft()) is None
    assert isinstance(look_up(), Found)
    cut_off_all_others(backend.database)
    for _ in range(placement.POOL_THREADS):
        found = look_up()
        assert isinstance(found, Found), found
    monkeypatch.undo()
    # (under a test runner, whoever works next closes what was left open)
    for _ in range(2 * placement.POOL_THREADS):
        placement.run(lambda: None)


def test_what_was_begun_is_not_done_twice_where_the_connection_is_well(database: str) -> None:
    begun: list[int] = []

    def work() -> None:
        begun.append(1)
        raise OperationalError("of the statement, not of the connection")

    def on_an_open_connection() -> None:
        # (one that another test had cut is not well)
        connections[database].close()
        connections[database].ensure_connection()
        placement.past_a_cut(work)

    with pytest.raises(OperationalError):
        placement.run(on_an_open_connection)
    assert begun == [1]


# A hot tier that takes nothing


@pytest.mark.redis
def test_copies_are_read_while_the_server_takes_none(redis: RedisServer) -> None:
    from redis import Redis

    assert store.save(draft()) is None
    wait_until(lambda: getattr(look_up(), "tier", None) == Tier.HOT)
    with Redis.from_url(redis.url) as operator:
        operator.replicaof("127.0.0.1", 1)  # (a primary that is not there)
        refused = [store.save(draft(f"{number:064x}")) for number in range(FAILURES + 1)]
        assert refused == [None] * len(refused)
        wait_until(lambda: not breakers.is_up(Tier.HOT, Use.WRITE))
        assert look_up().tier == Tier.HOT
        operator.replicaof("NO", "ONE")
        wait_until(lambda: breakers.is_up(Tier.HOT))


@pytest.mark.redis
def test_copies_that_could_not_be_removed_are_not_read(redis: RedisServer) -> None:
    from redis import Redis

    kept = "12" * 32
    assert store.save(draft(tags=frozenset({"doubtful"}))) is None
    assert store.save(draft(kept)) is None
    wait_until(
        lambda: all(getattr(store.lookup(key), "tier", None) == "hot" for key in (KEY, kept))
    )
    with Redis.from_url(redis.url) as operator:
        operator.replicaof("127.0.0.1", 1)
        done = llmcache.invalidate(tags=["doubtful"])
        assert Tier.HOT in done.pending
        assert not isinstance(look_up(), Found)
        assert getattr(store.lookup(kept), "tier", None) == Tier.DURABLE
        operator.replicaof("NO", "ONE")
        wait_until(lambda: breakers.is_up(Tier.HOT))
    assert not isinstance(look_up(), Found)
    assert hot.read(KEY) is None


@pytest.mark.redis
def test_what_another_process_could_not_remove_is_not_read_either(
    redis: RedisServer,
) -> None:
    from redis import Redis

    assert store.save(draft()) is None
    wait_until(lambda: getattr(look_up(), "tier", None) == Tier.HOT)
    with Redis.from_url(redis.url) as operator:
        operator.replicaof("127.0.0.1", 1)
        evictions.record([KEY])  # as another process does when it cannot remove them
        for _ in range(FAILURES):
            attempt(Tier.HOT, "write", partial(write_copy, KEY, b"copy", None))
        wait_until(lambda: not breakers.is_up(Tier.HOT, Use.READ))
        operator.replicaof("NO", "ONE")
        wait_until(lambda: breakers.is_up(Tier.HOT))
    assert hot.read(KEY) is None
