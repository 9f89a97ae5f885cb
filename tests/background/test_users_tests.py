"""In the tests of users: what a test's transaction has is left to it, and what to do is said once.

Real test cases of Django run inside of these tests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import SimpleTestCase, TestCase

import llmcache
from llmcache import breakers
from llmcache.background import database as placement
from llmcache.outcomes import Call, Tier
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client


def ask_client(model: StandIn) -> None:
    assert make_client(model).create(**CALL).title


def ask_async_client(model: StandIn) -> None:
    assert asyncio.run(make_client(model, async_client=True).create(**CALL)).title


def ask_many(model: StandIn) -> None:
    client = make_client(model)
    [result] = llmcache.create_many(client, [CALL])
    assert result.unwrap().title


@llmcache.cached
def decorated() -> int:
    return 1


def ask_decorated(model: StandIn) -> None:
    assert decorated() == 1


def ask_adapter(model: StandIn) -> None:
    llmcache.DjangoCache().set("key", "value")
    llmcache.DjangoCache().get("key")


def stream(model: StandIn) -> None:
    client = make_client(model)
    assert list(client.create_partial(**CALL))[-1].title


DOORS = [ask_client, ask_async_client, ask_many, ask_decorated, ask_adapter, stream]


def only(records: list[logging.LogRecord]) -> str:
    """What the only one of them says, once what was put off is done."""
    placement.finish()
    [record] = records
    return record.getMessage()


def run(case: type[unittest.TestCase]) -> None:
    """Run a test case as Django's test runner does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    assert not [trace for _, trace in (*result.failures, *result.errors)]


def in_a_thread(work: Callable[[], None]) -> list[Call]:
    """The calls that `work` makes on another thread. Raises what it raises."""
    calls: list[Call] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            with llmcache.capture() as captured:
                work()
            calls.extend(captured)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return calls


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_threads_leave_the_database_to_the_test(
    model: StandIn, database: str, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They would wait for what it has locked; and what they store would outlive the test."""

    class Tests(TestCase):
        databases = {"default", database}

        def test_a_thread(self) -> None:
            Group.objects.using(database).create(name="what locks SQLite")
            if door is not ask_async_client:  # (on this thread, its loop is not the test's)
                door(model)
                assert durable.entries().count() == 1
            calls = [call for _ in range(3) for call in in_a_thread(lambda: door(model))]
            assert calls
            for call in calls:
                assert not call.stored
                assert call.outcome == "miss"
                assert "HeldByATest" in call.reason

    run(Tests)
    assert not durable.entries().exists()
    assert "make it a TransactionTestCase" in only(caplog.records)
    assert breakers.is_up(Tier.DURABLE)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_simple_test_case_is_told_to_name_the_database(
    model: StandIn, database: str, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Tests(SimpleTestCase):
        def test_it(self) -> None:
            for _ in range(2):
                door(model)
                in_a_thread(lambda: door(model))

    run(Tests)
    assert f"`databases = {{'{database}', ...}}`" in only(caplog.records)
    assert breakers.is_up(Tier.DURABLE)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_test_without_the_mark_is_told_it(
    model: StandIn, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        door(model)
        in_a_thread(lambda: door(model))
    assert "@pytest.mark.django_db" in only(caplog.records)
    assert breakers.is_up(Tier.DURABLE)


def test_in_other_tests_threads_store_as_ever(model: StandIn, database: str) -> None:
    [miss] = in_a_thread(lambda: ask_client(model))
    [hit] = in_a_thread(lambda: ask_client(model))
    assert (miss.stored, hit.outcome) == (True, "hit")


SETTINGS = """
SECRET_KEY = "secret"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "llmcache"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
LLMCACHE = {"CACHE": None}
"""
TESTS = """
from concurrent.futures import ThreadPoolExecutor
from django.contrib.auth.models import Group
from django.db import connection
from django.test import TestCase
import llmcache

@llmcache.cached
def answer(question: int) -> int:
    return question

def ask():
    with llmcache.capture() as calls:
        assert answer(1) == 1
    return calls[0]

class Tests(TestCase):
    def test_a_thread(self):
        assert connection.is_in_memory_db()
        Group.objects.create(name="what locks the tables")
        with self.assertLogs("llmcache") as logs, ThreadPoolExecutor(1) as pool:
            other = pool.submit(ask).result()
        assert "HeldByATest" in other.reason, other.reason
        assert not other.stored
        assert len(logs.records) == 1, logs.output
        assert [ask().outcome, ask().outcome] == ["miss", "hit"]
"""


@pytest.mark.slow
def test_a_database_in_memory_is_left_to_the_test(tmp_path: Path) -> None:
    """As Django makes one for tests where the site is on SQLite."""
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "tests.py").write_text(TESTS)
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": paths, "DJANGO_SETTINGS_MODULE": "site_settings"}
    command = [sys.executable, "-m", "django", "test", "--top-level-directory", ".", "tests"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 1 test" in ran.stderr
