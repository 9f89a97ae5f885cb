"""Forks share no connection and no lock; what a process has counted outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.faults import forks, report
from tests.faults.children import do
from tests.faults.extent import extent
from tests.faults.forks import Report
from tests.faults.sites import Site
from tests.support.servers import PostgreSQLServer

ROOT = Path(__file__).parents[2]
FORKS = extent(3, 8)
# What a process that is killed has counted in so many seconds may be lost.
LOST_SECONDS = 4.0


@pytest.mark.parametrize("where", ["on_postgres", "on_mariadb", "on_sqlite"])
@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "at work"])
def test_a_fork_shares_nothing(request: pytest.FixtureRequest, where: str, busy: bool) -> None:
    site: Site = request.getfixturevalue(where)
    names = {"on_postgres": ["postgres", "redis"], "on_mariadb": ["mariadb", "redis"]}
    servers = [request.getfixturevalue(name).port for name in names.get(where, [])]
    reports: list[Report] = do(site, forks.serve, forks=FORKS, servers=servers, busy=busy)
    for seen in reports:
        assert not seen.error, seen.error
        assert not seen.wrong
    assert all(seen.ports for seen in reports[:-1]) or not servers
    if not busy:  # (else each fork has the sockets of threads that it has not, and never uses them)
        for one, other in combinations(reports, 2):
            assert one.ports.isdisjoint(other.ports)


@dataclass
class Program:
    """A process that hits once for each line that it is sent, and says when."""

    process: subprocess.Popen[str]
    key: str = ""

    def hit(self) -> float:
        """When it has hit once more."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.hear())

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def program(on_postgres: Site) -> Iterator[Program]:
    settings = {**on_postgres.environment, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.forks", f"Who counts? {uuid4()}"],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        program = Program(process)
        program.key = program.hear()
        yield program
        process.kill()


def hits(server: PostgreSQLServer, key: str) -> int:
    with psycopg.connect(server.url) as session:
        found = session.execute("SELECT hits FROM llmcache_cacheentry WHERE key = %s", [key])
        [(number,)] = found.fetchall()
    return int(number)


def test_hits_are_counted_at_the_end(program: Program, postgres: PostgreSQLServer) -> None:
    for _ in range(7):
        program.hit()
    program.process.communicate(timeout=30)
    assert program.process.returncode == 0
    assert hits(postgres, program.key) == 7


def test_a_kill_loses_a_few_seconds_of_hits(program: Program, postgres: PostgreSQLServer) -> None:
    moments = []
    ends = time.monotonic() + LOST_SECONDS + 2.0
    while time.monotonic() < ends:
        moments.append(program.hit())
        time.sleep(0.01)
    program.process.kill()
    program.process.wait()
    killed = time.monotonic()
    counted = hits(postgres, program.key)
    assert counted >= sum(moment < killed - LOST_SECONDS for moment in moments) > 0
    lost = killed - moments[counted] if counted < len(moments) else 0.0
    report.record("processes", lost_seconds=lost)
