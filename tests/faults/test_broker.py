"""Refreshing stale answers by Celery: without its broker, and with messages delivered twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from project.standin.server import StandIn
from tests.faults import refreshing, report, sites
from tests.faults.children import Child, prepare
from tests.faults.extent import extent
from tests.faults.sites import Site
from tests.support.servers import PostgreSQLServer, RedisServer

ROOT = Path(__file__).parents[2]
FAULT_SECONDS = extent(4.0, 60.0)
WORKER_SECONDS = 60.0
# What is done to the broker, and what it is after that.
BROKEN = {"kill": "killed", "pause": "stopped (SIGSTOP)"}


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    with RedisServer() as broker:
        yield broker


@pytest.fixture
def model() -> Iterator[StandIn]:
    with StandIn() as model:
        model.behaviour.vary = True
        yield model


@pytest.fixture
def site(
    postgres: PostgreSQLServer,
    redis: RedisServer,
    broker: RedisServer,
    model: StandIn,
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """One where Celery is to refresh, and workers find the model in the environment."""
    site = prepare(sites.on_postgres(postgres, redis.url, tmp_path_factory.mktemp("broker")))
    more = {
        "CELERY_BROKER_URL": broker.url,
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "k",
    }
    return replace(site, environment=site.environment | more).but(
        # (what was handed over is not handed over again for so long)
        LEASE_SECONDS=1,
        REFRESH="llmcache.tasks.refresh_later",
        STALE_WHILE_REVALIDATE=3600,
    )


@pytest.mark.parametrize("stop", list(BROKEN))
def test_the_broker_is_stopped(site: Site, broker: RedisServer, stop: str) -> None:
    """The stale answer is served at once, and refreshed by the process itself where it can be."""
    with Child(site, refreshing.ask_for, seconds=FAULT_SECONDS) as child:
        child.hear()
        getattr(broker, stop)()
        child.tell("go")
        seen = child.hear()
    report.record("broker", what=BROKEN[stop], seconds=FAULT_SECONDS, **seen)
    assert seen["errors"] == []
    assert seen["stale"]
    assert seen["max"] < 2000
    if stop == "kill":  # (a broker that hangs takes messages)
        assert seen["fresh"]


def test_messages_are_delivered_twice(site: Site, model: StandIn) -> None:
    """A prefork worker is told the same thing four times, and asks once."""
    with Child(site, refreshing.tell_again_and_again, times=4) as child:
        key = child.hear()
        assert len(model.calls) == 1
        with worker(site):
            child.tell("go")
            assert child.hear(WORKER_SECONDS) == "told"
            deadline = time.monotonic() + WORKER_SECONDS
            while len(model.calls) < 2:
                assert time.monotonic() < deadline, "the worker did nothing"
                time.sleep(0.05)
            time.sleep(2)
        child.tell("what is stored?")
        assert child.hear() == (key, "fresh")
    report.record("broker", what="a message delivered four times", asked=len(model.calls) - 1)
    assert len(model.calls) == 2


@pytest.fixture(autouse=True)
def _no_leftovers(broker: RedisServer) -> Iterator[None]:
    yield
    broker.resume()


class worker:  # noqa: N801 - used as a context manager
    """A worker of Celery with two processes, on `site`."""

    def __init__(self, site: Site) -> None:
        settings = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
        self._environment = {**os.environ, **site.environment, **settings}
        self._environment["LLMCACHE_TEST_LLMCACHE"] = repr(site.llmcache)

    def __enter__(self) -> None:
        arguments = ["worker", "--pool", "prefork", "--concurrency", "2", "--without-mingle"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tests.faults.celery_app", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
