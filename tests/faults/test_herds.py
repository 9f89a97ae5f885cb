"""A thousand callers with one question are one call of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest

from project.standin.server import StandIn
from tests.faults import report
from tests.faults.extent import extent
from tests.faults.herd import Herd, lag
from tests.faults.sites import Site
from tests.support.servers import RedisServer

PROCESSES = extent(4, 8)
CALLERS = extent(25, 125)
MODEL_SECONDS = extent(1.0, 2.0)
KILLS = extent(1, 3)
LEASE_SECONDS = extent(2, 10)
MOST_UNREAD = 0.05

either = pytest.mark.parametrize("is_async", [False, True], ids=["threads", "coroutines"])


@pytest.fixture(scope="module", params=["on_postgres", "on_sqlite"])
def herd(request: pytest.FixtureRequest) -> Iterator[Herd]:
    site: Site = request.getfixturevalue(request.param).but(LEASE_SECONDS=LEASE_SECONDS)
    with StandIn() as model:
        herd = Herd(site, model, processes=PROCESSES, callers=CALLERS)
        model.latency = MODEL_SECONDS
        yield herd
        herd.close()


def check(herd: Herd, where: str, is_async: bool, *, kills: int = 0) -> None:
    """Have all of them ask; the holder is killed, so many times."""
    herd.ask(f"What is all the noise about? {uuid4()}", is_async=is_async)
    for number in range(1, kills + 1):
        herd.kill_who_asks(number)
    callers, asked = herd.seen(), len(herd.model.calls)
    report.record(
        "herds",
        where=where,
        callers=f"{PROCESSES} × {CALLERS} {'coroutines' if is_async else 'threads'}",
        asked=asked,
        kills=kills,
        errors=sum(bool(caller.error) for caller in callers),
        lag=lag(callers) * 1000,
    )
    how = Counter(caller.how for caller in callers if caller.answered or caller.error)
    assert {caller.error for caller in callers} == {""}, how
    assert len({caller.title for caller in callers}) == 1
    assert len(callers) == (PROCESSES - kills) * CALLERS
    # Whoever could not read in time (of a hundred threads, under load) asks instead of waiting on.
    unread = sum("failed to read" in caller.how for caller in callers)
    assert unread <= len(callers) * MOST_UNREAD
    assert 1 <= asked <= 1 + kills + unread, how


def name_of(site: Site) -> str:
    return "PostgreSQL and Redis" if site.cache else "SQLite"


@either
def test_one_asks(herd: Herd, is_async: bool) -> None:
    check(herd, name_of(herd.site), is_async)


@either
@pytest.mark.parametrize("herd", ["on_postgres"], indirect=True)
def test_one_asks_without_redis(herd: Herd, redis: RedisServer, is_async: bool) -> None:
    redis.stop()
    try:
        check(herd, "PostgreSQL, Redis stopped", is_async)
    finally:
        redis.start()


@either
def test_another_asks_when_one_is_killed(herd: Herd, is_async: bool) -> None:
    check(herd, f"{name_of(herd.site)}, holders killed", is_async, kills=KILLS)
    herd.replace_the_killed()
