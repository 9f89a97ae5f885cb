"""The task in a real worker of the example site, by each broker that it can use."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from project.standin.server import StandIn
from tests.support import servers

pytestmark = pytest.mark.slow

FILL = """
import time
from llmcache.codec.envelope import ANSWER, seal
from llmcache.store.records import Draft
from llmcache.store.rows.tier import write
from llmcache.store.rows.late_answers import generation
now = time.time()
for number, ttl in enumerate([-60, -60, 60]):
    key = f"{number:064x}"
    payload = seal(ANSWER, key, b"", created=now, expires=now + ttl)
    write(Draft(key, "tests", payload, now, now + ttl), generation())
"""

BEGIN_TO_INVALIDATE = """
from llmcache.removal.criteria import Criteria
from llmcache.removal.resumable import start
print(start(Criteria(namespace="tests"), "jo"))
"""

ASK_AND_EXPIRE = """
from datetime import timedelta
from django.utils import timezone
from llmcache.models import CacheEntry
from project.extraction.client import client
client.create(response_model=int, messages=[{"role": "user", "content": "How much is it?"}])
now, hour = timezone.now(), timedelta(hours=1)
CacheEntry.objects.update(created_at=now - 2 * hour, expires_at=now - hour, stale_until=now + hour)
print(CacheEntry.objects.get().key)
"""


def rabbitmq_url() -> str:
    with suppress(OSError), socket.create_connection(("127.0.0.1", 5672), timeout=2):
        return "amqp://guest:guest@127.0.0.1:5672//"
    reason = "RabbitMQ does not answer on 127.0.0.1:5672; `make services` starts it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(
    params=[
        "filesystem",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def broker(request: pytest.FixtureRequest) -> str:
    """The URL for CELERY_BROKER_URL; empty for the one that needs no server."""
    if request.param == "redis":
        servers.require(servers.RedisServer)
        return os.environ["LLMCACHE_TEST_REDIS"]
    return rabbitmq_url() if request.param == "rabbitmq" else ""


@pytest.fixture
def site(broker: str, tmp_path: Path) -> dict[str, str]:
    """The environment of an example site with a database of its own."""
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{tmp_path}/site.sqlite3",
        "CELERY_BROKER_URL": broker,
    }


@pytest.fixture
def asking_site(site: dict[str, str], model: StandIn) -> dict[str, str]:
    """`site`, whose processes find the model through the environment, as the worker does."""
    site |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": model.url}
    return site


@pytest.fixture
def queue() -> str:
    """Of the test alone: the broker may have other workers."""
    return f"llmcache-tests-{uuid4().hex}"


@pytest.fixture
def worker(site: dict[str, str], queue: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["worker", "--pool", "solo", "--without-mingle", "--without-gossip", "-Q", queue]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "project", *command],
        env=site,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.terminate()
    process.wait(20)
    if site["CELERY_BROKER_URL"].startswith("amqp"):
        run(site, "-m", "celery", "-A", "project", "amqp", "queue.delete", queue)


def run(site: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=site, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(site: dict[str, str]) -> int:
    path = site["DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT COUNT(*) FROM llmcache_cacheentry").fetchone()[0]
    return count


def await_rows(site: dict[str, str], worker: subprocess.Popen[bytes], wanted: int) -> None:
    deadline = time.monotonic() + 60
    while rows(site) != wanted:
        assert worker.poll() is None, "the worker ended"
        assert time.monotonic() < deadline, "the worker did nothing"
        time.sleep(0.1)


def test_a_worker_expires_and_invalidates_entries(
    site: dict[str, str], queue: str, worker: subprocess.Popen[bytes]
) -> None:
    run(site, "manage.py", "migrate", "--verbosity", "0")
    run(site, "manage.py", "shell", "--no-imports", "--command", FILL)
    assert rows(site) == 3
    # Delivered twice, as brokers may: the second finds nothing to do.
    for _ in range(2):
        call = ["call", "llmcache.expire_entries", "--queue", queue]
        run(site, "-m", "celery", "-A", "project", *call)
    await_rows(site, worker, 1)
    begin = ["manage.py", "shell", "--no-imports", "--command", BEGIN_TO_INVALIDATE]
    pk = run(site, *begin).split()[-1]
    call = ["call", "llmcache.invalidate", "--args", f"[{pk}]", "--queue", queue]
    run(site, "-m", "celery", "-A", "project", *call)
    await_rows(site, worker, 0)


def test_a_worker_refreshes_a_stale_entry_once(
    asking_site: dict[str, str], model: StandIn, queue: str, worker: subprocess.Popen[bytes]
) -> None:
    run(asking_site, "manage.py", "migrate", "--verbosity", "0")
    shell = ["manage.py", "shell", "--no-imports", "--command", ASK_AND_EXPIRE]
    key = run(asking_site, *shell).split()[-1]
    assert len(model.calls) == 1
    call = ["call", "llmcache.refresh_entry", "--args", f'["{key}"]', "--queue", queue]
    for _ in range(2):
        run(asking_site, "-m", "celery", "-A", "project", *call)
    deadline = time.monotonic() + 60
    while len(model.calls) != 2:
        assert worker.poll() is None, "the worker ended"
        assert time.monotonic() < deadline, "the worker did nothing"
        time.sleep(0.1)
    time.sleep(2)  # in which the second message is looked at
    assert len(model.calls) == 2
