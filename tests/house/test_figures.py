"""What the code is made of, and how many steps a call takes: no more than that.

Whoever makes a figure better writes the better one here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import counting
from tests.support.paths import ROOT
from tests.support.servers import PostgreSQLServer, RedisServer, require

OF_THE_SOURCE = {
    "lines of the longest file": 336,
    "lines of the longest file of the tests": 450,
    "modules on top": 18,
    "modules of the fullest folder": 15,
    "fork hooks": 2,
    "throw/send loops": 3,
    "imports that close a circle": 0,
}
OF_THE_WORK = {
    "own calls on a hit": 59,
    "own files on a hit": 24,
    "own calls on a miss": 572,
    "own files on a miss": 53,
    "waits for workers on a miss": 2,
    "statements to invalidate one key on SQLite": 11,
    "statements to invalidate one key on PostgreSQL": 11,
}


def exceeded(figures: dict[str, int], bounds: dict[str, int]) -> dict[str, int]:
    return {name: figures[name] for name, bound in bounds.items() if figures[name] > bound}


def test_of_the_source() -> None:
    assert exceeded(counting.of_the_source(), OF_THE_SOURCE) == {}


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_of_the_work() -> None:
    for server in (RedisServer, PostgreSQLServer):
        require(server)
    # (those of this run have the tables of other tests)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("LLMCACHE_")
    }
    counted = subprocess.run(
        [sys.executable, "-m", "tests.support.counting"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert counted.returncode == 0, counted.stderr
    assert exceeded(json.loads(counted.stdout), OF_THE_WORK) == {}
