"""Handing work over to the queue of the settings: Celery, Django's own, or none."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import Client

import llmcache
from llmcache import tasks
from llmcache.admin import invalidations
from llmcache.models import CacheEntry, Invalidation
from llmcache.tasks import on_celery
from project.standin.server import StandIn
from tests.support.admin import confirm, store
from tests.support.clients import CALL, make_client
from tests.support.paths import ROOT
from tests.support.waiting import await_lease, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


REFRESH = "llmcache.tasks.refresh_later"

HAS_TASKS = find_spec("django.tasks") is not None

on_django_6 = pytest.mark.skipif(not HAS_TASKS, reason="django.tasks came with Django 6.0")

IMMEDIATE = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}

DUMMY = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}}


def use(settings: Any, queue: str | None) -> None:
    settings.LLMCACHE = {"CACHE": None, "TASKS": queue, "REFRESH": REFRESH}


def ids() -> list[str | None]:
    return [message.id for message in run_checks(tags=["llmcache"])]


def serve_a_stale_one(client: Any) -> str:
    """Store an answer, let it expire, and be served it; its key."""
    client.create(**CALL, cache_ttl=0.3, cache_stale_while_revalidate=3600)
    await_lease()
    time.sleep(0.5)
    with llmcache.capture() as calls:
        client.create(**CALL, cache_stale_while_revalidate=3600)
    assert calls[0].outcome == "stale"
    return calls[0].key


def await_refresh(model: StandIn) -> None:
    """Until the new answer is stored, too: it would be found by the next test."""
    wait_until(lambda: len(model.calls) == 2)
    await_lease()


def test_without_a_queue_nothing_is_handed_over(settings: Any, model: StandIn) -> None:
    use(settings, None)
    assert (tasks.refresh_later("0" * 64), tasks.invalidate_later(1)) == (False, False)
    serve_a_stale_one(make_client(model))
    await_refresh(model)
    assert ids() == []


def test_celery_is_the_queue_unless_another_one_is_named(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def tell(key: str) -> bool:
        told.append(key)
        return True

    monkeypatch.setattr(on_celery, "refresh_later", tell)
    settings.LLMCACHE = {"CACHE": None}
    assert tasks.refresh_later("a")
    use(settings, "celery")
    assert tasks.refresh_later("b")
    assert told == ["a", "b"]


@pytest.mark.parametrize("name", ["tasks", "rq", "", True, 1, ["celery"]])
def test_a_queue_that_nobody_knows_is_refused(settings: Any, name: Any) -> None:
    use(settings, name)
    assert ids() == ["llmcache.E002"]


@pytest.mark.skipif(HAS_TASKS, reason="this Django has django.tasks")
def test_on_an_older_django_the_check_says_so(settings: Any, model: StandIn) -> None:
    use(settings, "django")
    [message] = run_checks(tags=["llmcache"])
    assert (message.id, message.hint) == (
        "llmcache.E008",
        'It takes Django 6.0 or newer; before, use "celery" or None.',
    )
    serve_a_stale_one(make_client(model))  # and the process does it itself
    await_refresh(model)


def test_an_invalidation_is_done_where_the_queue_is_not_there(
    settings: Any, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_missing(pk: int) -> bool:
        raise ImportError

    monkeypatch.setattr(invalidations, "FEW", 0)
    monkeypatch.setattr(tasks, "invalidate_later", is_missing)
    store(namespace="support")
    confirm(admin_client, 1, namespace="support")
    assert not CacheEntry.objects.exists()


@pytest.mark.slow
def test_the_app_works_without_celery() -> None:
    program = """
import sys
sys.modules["celery"] = None
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["llmcache"], LLMCACHE={"CACHE": None, "TASKS": None}, DATABASES={
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from llmcache import tasks
print(tasks.refresh_later("a"), tasks.invalidate_later(1))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


@on_django_6
class TestDjangosQueue:
    @pytest.fixture(autouse=True)
    def _queue(self, settings: Any) -> None:
        use(settings, "django")

    @pytest.fixture
    def enqueued(self) -> Iterator[list[Any]]:
        """What was handed over. (Each thread has a backend of its own.)"""
        from django.tasks.signals import task_enqueued

        results: list[Any] = []

        def note(sender: Any, task_result: Any, **_: Any) -> None:
            results.append(task_result)

        task_enqueued.connect(note)
        yield results
        task_enqueued.disconnect(note)

    def test_is_silent_at_the_check(self) -> None:
        assert ids() == []

    def test_a_backend_that_runs_tasks_at_once_is_no_relief(
        self, settings: Any, model: StandIn
    ) -> None:
        settings.TASKS = IMMEDIATE
        assert (tasks.refresh_later("0" * 64), tasks.invalidate_later(1)) == (False, False)
        serve_a_stale_one(make_client(model))
        await_refresh(model)

    def test_a_worker_refreshes_an_entry(
        self, settings: Any, model: StandIn, enqueued: list[Any]
    ) -> None:
        settings.TASKS = DUMMY
        client = make_client(model)  # (which a refresh uses as long as somebody has it)
        key = serve_a_stale_one(client)
        wait_until(lambda: enqueued)
        [result] = enqueued
        assert len(model.calls) == 1
        assert result.args[0] == key
        await_lease()
        assert result.task.call(*result.args) == "refreshed"
        assert len(model.calls) == 2

    def test_a_worker_that_comes_late_asks_nobody(
        self, settings: Any, model: StandIn, enqueued: list[Any]
    ) -> None:
        settings.TASKS = DUMMY
        key = serve_a_stale_one(make_client(model))
        wait_until(lambda: enqueued)
        [result] = enqueued
        assert result.task.call(key, time.time() - 1) == "too late"
        assert len(model.calls) == 1

    def test_a_worker_carries_an_invalidation_to_its_end(
        self,
        settings: Any,
        admin_client: Client,
        monkeypatch: pytest.MonkeyPatch,
        enqueued: list[Any],
    ) -> None:
        settings.TASKS = DUMMY
        monkeypatch.setattr(invalidations, "FEW", 0)
        store(namespace="support")
        confirm(admin_client, 1, namespace="support")
        [result] = enqueued
        assert CacheEntry.objects.count() == 1
        assert result.task.call(*result.args) == ""
        assert not CacheEntry.objects.exists()
        assert Invalidation.objects.get().finished_at


# With an application of its own: a database in which the tasks are.
WITH_A_DATABASE = """
import os
import time
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llmcache", "django_tasks_db"], USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
    LLMCACHE={"CACHE": None, "TASKS": "django", "REFRESH": "llmcache.tasks.refresh_later"},
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
import llmcache
from django_tasks_db.models import DBTaskResult
from llmcache import tasks
from llmcache.removal import resumable
from llmcache.removal.criteria import Criteria
from llmcache.models import CacheEntry, Lease
def work():
    call_command("db_worker", batch=True, interval=0.1, startup_delay=False)
client = llmcache.from_provider("openai/gpt-4.1-mini")
call = {"response_model": int, "messages": [{"role": "user", "content": "How much?"}],
        "cache_stale_while_revalidate": 3600}
client.create(**call, cache_ttl=2)
while Lease.objects.exclude(token="").exists():
    time.sleep(0.02)
time.sleep(2.2)
with llmcache.capture() as calls:
    client.create(**call)
    while not DBTaskResult.objects.exists():
        time.sleep(0.02)
    work()
    client.create(**call, cache_mode="only-if-cached")
print([str(call.outcome) for call in calls])
tasks.invalidate_later(resumable.start(Criteria(namespace="default"), "jo"))
work()
print(CacheEntry.objects.count(), [str(result.status) for result in DBTaskResult.objects.all()])
"""


@on_django_6
def test_a_worker_with_a_database_does_both(tmp_path: Path, model: StandIn) -> None:
    environment = {
        "DATABASE": str(tmp_path / "db.sqlite3"),
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_CUSTOM_HEADERS": "Connection: close",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_DATABASE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = ["['stale', 'reload', 'hit']", "0 ['SUCCESSFUL', 'SUCCESSFUL']"]
    assert [line for line in done.stdout.splitlines() if "worker" not in line] == said
    assert len(model.calls) == 2
