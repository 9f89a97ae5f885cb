"""After an invalidation has returned, nobody is given what was stored before it began."""

from __future__ import annotations

import time

import pytest

from tests.faults import linear, report
from tests.faults.children import Child, do_all
from tests.faults.extent import extent
from tests.faults.linear import Log, Read, Removal, too_old
from tests.faults.sites import Site

PROCESSES = extent(4, 8)
OPERATIONS = extent(10_000, 200_000)
# SQLite has one writer.
FRACTION = {"on_postgres": 1.0, "on_sqlite": 0.2}


@pytest.mark.parametrize("where", list(FRACTION))
def test_no_read_is_too_old(request: pytest.FixtureRequest, where: str) -> None:
    site: Site = request.getfixturevalue(where)
    each = int(OPERATIONS * FRACTION[where]) // PROCESSES
    started = time.monotonic()
    log = sum(work(site, each), Log())
    old = list(too_old(log))
    report.record(
        "linearity",
        where="PostgreSQL and Redis" if site.cache else "SQLite",
        workers=PROCESSES * len(linear.KINDS),
        operations=log.operations,
        reads=len(log.reads),
        removals=len(log.removals),
        pending=log.pending,
        too_old=len(old),
        seconds=time.monotonic() - started,
    )
    assert log.removals
    assert old == []


def work(site: Site, each: int) -> list[Log]:
    order = {"operations": each}
    children = [Child(site, linear.work, seed=seed, **order) for seed in range(PROCESSES)]
    try:
        do_all(children)
        for child in children:
            child.tell("go")
        return do_all(children, seconds=extent(120, 1200))
    finally:
        for child in children:
            child.close()


def test_an_old_read_is_seen() -> None:
    """The judge itself is judged."""
    removal = Removal((1,), began=10, ended=20)
    reads = [
        Read(1, began=15, asked=5),  # began before the invalidation had returned
        Read(1, began=25, asked=12),
        Read(2, began=25, asked=5),
    ]
    guilty = Read(1, began=21, asked=9)
    assert list(too_old(Log([*reads, guilty], [removal]))) == [guilty]
