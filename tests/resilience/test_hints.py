"""Trouble is told once a minute; that which somebody has to do something about once, with what."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError

from llmcache import breakers, discretion, signals, store
from llmcache.background import database, scheduler
from llmcache.outcomes import Tier
from llmcache.resilience import failsafe
from llmcache.resilience.failsafe import attempt
from project.standin.server import StandIn
from tests.support.backends import unreachable
from tests.support.clients import CALL, make_client
from tests.support.entries import KEY
from tests.support.servers import free_port


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """What earlier tests have left to be done would be told here, and not what this one does."""
    its = scheduler._scheduler
    its.stop()
    for pool in (its._workers, database._workers, database._writers, database._writer):
        assert pool.drain(30)
    failsafe._hinted.clear()
    discretion.once_a_minute.told.clear()
    yield
    its.go_on()


def fail(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("no such table: llmcache_cacheentry"),
        ProgrammingError('relation "llmcache_cacheentry" does not exist'),
        ProgrammingError(1146, "Table 'site.llmcache_cacheentry' doesn't exist"),
    ],
)
def test_tables_that_are_missing_say_migrate_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        attempt(Tier.DURABLE, "read", partial(fail, error))
    assert [record.getMessage() for record in caplog.records] == [
        "llmcache: its tables are missing: run `manage.py migrate`"
    ]
    assert breakers.is_up(Tier.DURABLE)


def test_tables_with_a_database_of_their_own_say_which(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has migrated the default database is not told to do so again."""
    settings.LLMCACHE = {"CACHE": None, "DATABASE": "llmcache"}
    missing = OperationalError("no such table: llmcache_cacheentry")
    attempt(Tier.DURABLE, "read", partial(fail, missing))
    [record] = caplog.records
    assert record.getMessage().endswith("run `manage.py migrate llmcache --database llmcache`")


def test_a_test_that_may_not_use_the_database_is_told_the_mark(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(5):
        store.lookup(KEY)
    [record] = caplog.records
    assert "@pytest.mark.django_db" in record.getMessage()
    assert breakers.is_up(Tier.DURABLE)


MORE = re.compile(r" \((\d+) more in the last minute\)$")


@pytest.fixture
def failed() -> Iterator[Counter[str]]:
    """How often each trouble came."""
    counts: Counter[str] = Counter()

    def count(tier: Tier, operation: str, error: Exception, **_: Any) -> None:
        counts[f"the {tier} tier failed to {operation} ({type(error).__name__})"] += 1

    signals.tier_failed.connect(count)
    yield counts
    signals.tier_failed.disconnect(count)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since, once what was put off is done."""
    database.finish()
    told = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return told


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_what_keeps_failing_is_told_once_a_minute_and_how_often(
    model: StandIn,
    settings: Any,
    failed: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis = "django.core.cache.backends.redis.RedisCache"
    location = f"redis://127.0.0.1:{free_port()}"
    settings.CACHES = {"default": {"BACKEND": redis, "LOCATION": location}}
    settings.LLMCACHE = {"CACHE": "default"}
    now = 1000.0
    monkeypatch.setattr(discretion.once_a_minute, "clock", lambda: now)
    monkeypatch.setattr(breakers, "FAILURES", 1000)  # no circuit opens, so that each call fails
    client = make_client(model)

    def ask(times: int) -> None:
        for _ in range(times):
            assert client.create(**CALL).title

    with unreachable("default"):
        ask(6)
        told, came = lines(caplog), failed.copy()
        assert {trouble.split()[1] for trouble in came} == {"hot", "durable"}
        assert max(came.values()) >= 6
        for trouble in came:
            assert len([line for line in told if trouble in line]) == 1, told
        now += 30
        ask(1)
        assert lines(caplog) == []
        now += 31
        came = failed.copy()
        ask(1)
        again = lines(caplog)
    more = {line.partition(": ")[2].partition(": ")[0]: MORE.search(line) for line in again}
    for trouble in came.keys() & more.keys():
        found = more[trouble]
        assert (int(found[1]) if found else 0) == came[trouble] - 1, again
    assert any(trouble.startswith("the hot tier failed to read") for trouble in more)
    assert any(trouble.startswith("the durable tier failed to write") for trouble in more)


def test_each_kind_is_told(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("llmcache")
    for name in ("one", "another", "one"):
        logger.warning("llmcache: calls of %s are not cached", name)
        logger.warning("llmcache: %s was not refreshed", KEY if name == "one" else "f" * 64)
        logger.info("llmcache: the tier is well again")
    assert lines(caplog) == [
        "llmcache: calls of one are not cached",
        f"llmcache: {KEY} was not refreshed",
        "llmcache: calls of another are not cached",
    ]
