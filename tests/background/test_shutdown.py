"""A server that is stopped by SIGTERM has written what it put off and what it counted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pytest
from django.db import connection, transaction

import llmcache
from llmcache import store
from llmcache.exceptions import InvalidArgument
from llmcache.store.rows import late_answers
from llmcache.usage import ledger
from tests.support.backends import hold_the_write_lock
from tests.support.entries import KEY, draft
from tests.support.paths import ROOT
from tests.support.servers import free_port

# (a busy machine; each takes less than 2 seconds by itself)
PATIENCE = 30.0
USUAL_SECONDS = 5.0
# (a worker of Celery looks up from its queue of files every 5 seconds)
WORKERS_SECONDS = 15.0
QUESTIONS = 5

SITE = """
import os
from pathlib import Path
import django
from django.conf import settings
HERE = Path(__file__).parent
settings.configure(
    SECRET_KEY="k", ALLOWED_HOSTS=["*"], ROOT_URLCONF="site_of_test", USE_TZ=True,
    INSTALLED_APPS=["llmcache"], LLMCACHE={"CACHE": None},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3"}},
)
django.setup()
from celery import Celery
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path
import llmcache

@llmcache.cached(ttl=3600)
def answer(question: str) -> str:
    return question.upper()

@llmcache.cached(ttl=3600)
async def aanswer(question: str) -> str:
    return question.upper()

def ask(question):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE llmcache_writegate SET id = id")
        return answer(question) + answer(question)

def view(request, question):
    return HttpResponse(ask(question))

async def async_view(request, question):
    return HttpResponse(await aanswer(question) + await aanswer(question))

urlpatterns = [path("sync/<question>", view), path("async/<question>", async_view)]
asgi, wsgi = get_asgi_application(), get_wsgi_application()
app = Celery("site", broker="filesystem://", task_ignore_result=True)
app.conf.broker_transport_options = {
    "data_folder_in": str(HERE / "queue"), "data_folder_out": str(HERE / "queue"),
    "control_folder": str(HERE / "control"),
}

@app.task(name="ask")
def task(question):
    ask(question)
    (HERE / question).touch()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with a site, whose database is in a file of its own."""
    (tmp_path / "site_of_test.py").write_text(SITE)
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    run(tmp_path, "from django.core.management import call_command as c; c('migrate', verbosity=0)")
    return tmp_path


def environment(site: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(site), str(ROOT)])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}


def run(site: Path, code: str) -> None:
    code = f"import site_of_test; {code}"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment(site), cwd=site, check=True, timeout=PATIENCE)


def start(site: Path, *command: str) -> subprocess.Popen[bytes]:
    with (site / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment(site),
            cwd=site,
            stdout=log,
            stderr=log,
        )


def stop(site: Path, process: subprocess.Popen[bytes], within: float = USUAL_SECONDS) -> int:
    """What the server ends with, soon after it was told to."""
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        ended = process.wait(PATIENCE)
    finally:
        process.kill()
    assert time.monotonic() - told < within, (site / "log").read_text()
    return ended


def written(site: Path) -> tuple[int, int, int]:
    """How many entries there are, how many hits of theirs, and how many calls were counted."""
    with closing(sqlite3.connect(site / "db.sqlite3")) as database:
        [entry] = database.execute("SELECT count(*), sum(hits) FROM llmcache_cacheentry")
        [calls] = database.execute("SELECT sum(calls) FROM llmcache_usagehour")
    return entry[0], entry[1] or 0, calls[0] or 0


def fetch(url: str, process: subprocess.Popen[bytes]) -> bytes:
    ends = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError), urllib.request.urlopen(url) as response:
            return bytes(response.read())
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)


TERMINATED = -signal.SIGTERM
UVICORN = ["uvicorn", "site_of_test:asgi", "--port", "{port}"]
GUNICORN = ["gunicorn", "--bind", "127.0.0.1:{port}"]
SERVERS = {
    "uvicorn": (UVICORN, TERMINATED),
    "uvicorn with two processes": ([*UVICORN, "--workers", "2"], 0),
    "gunicorn, sync": ([*GUNICORN, "site_of_test:wsgi"], 0),
    "gunicorn, preloaded": ([*GUNICORN, "--preload", "site_of_test:wsgi"], 0),
    "gunicorn, threads": ([*GUNICORN, "--threads", "4", "site_of_test:wsgi"], 0),
    "gunicorn, uvicorn": (
        [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "site_of_test:asgi"],
        0,
    ),
    "gunicorn, uvicorn, preloaded": (
        [*GUNICORN, "--preload", "-k", "uvicorn_worker.UvicornWorker", "site_of_test:asgi"],
        0,
    ),
    "hypercorn": (["hypercorn", "site_of_test:asgi", "--bind", "127.0.0.1:{port}"], 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_loses_nothing(site: Path, server: str, way: str) -> None:
    command, ends_with = SERVERS[server]
    port = str(free_port())
    process = start(site, *(word.format(port=port) for word in command))
    try:
        for number in range(QUESTIONS):
            fetch(f"http://127.0.0.1:{port}/{way}/question-{number}", process)
    except BaseException:
        process.kill()
        raise
    assert stop(site, process) == ends_with
    assert written(site) == (QUESTIONS, QUESTIONS, 2 * QUESTIONS), (site / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_of_celery_loses_nothing(site: Path, pool: str) -> None:
    worker = ("celery", "-A", "site_of_test", "worker", "-P", pool, "-c", "2", "--without-mingle")
    process = start(site, *worker, "--without-gossip")
    try:
        questions = [f"question-{number}" for number in range(QUESTIONS)]
        run(site, f"[site_of_test.task.delay(each) for each in {questions}]")
        ends = time.monotonic() + PATIENCE
        while not all((site / each).exists() for each in questions):
            assert time.monotonic() < ends, (site / "log").read_text()
            time.sleep(0.02)
    except BaseException:
        process.kill()
        raise
    assert stop(site, process, WORKERS_SECONDS) == 0
    assert written(site) == (QUESTIONS, QUESTIONS, 2 * QUESTIONS), (site / "log").read_text()


# Where no thread can be started

ACT = "site_of_test.ask('question-0'), site_of_test.answer('question-1')"
LAST_ACTS = {
    # (so it is from Python 3.12 on, but for some versions with another thread)
    "the interpreter ends": f"import atexit; atexit.register(lambda: ({ACT}))",
    "another thread is left": f"""import threading
def act(): threading.main_thread().join(), {ACT}
threading.Thread(target=act).start()""",
    # (no system has room for such a stack)
    "there are too many": f"import threading; threading.stack_size(2**45); {ACT}",
}


@pytest.mark.slow
@pytest.mark.parametrize("when", LAST_ACTS)
def test_where_no_thread_can_be_started_nothing_is_lost(
    site: Path, when: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run(site, LAST_ACTS[when])
    assert capfd.readouterr().err == ""
    assert written(site) == (2, 1, 3)


HANGS = """import threading
from django.db.backends.sqlite3.base import DatabaseWrapper
from llmcache.background import database, pool
database.EXIT_SECONDS, pool.IDLE_SECONDS = 1.0, 0.0
site_of_test.answer('question')
while any(each.name.startswith('llmcache w') for each in threading.enumerate()): pass
DatabaseWrapper.get_new_connection = lambda *_: threading.Event().wait()"""


@pytest.mark.slow
def test_a_process_ends_although_its_database_hangs(site: Path) -> None:
    run(site, HANGS)
    assert written(site)[0] == 1


# By hand


@pytest.mark.django_db(transaction=True)
def test_all_is_written_when_flush_says_so() -> None:
    with transaction.atomic():
        hold_the_write_lock()
        store.save(draft(), late_answers.generation())
        assert not llmcache.flush()
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM llmcache_cacheentry")
            assert cursor.fetchone() == (0,)
    assert llmcache.flush(10)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM llmcache_cacheentry WHERE key = %s", [KEY])
        assert cursor.fetchone() == (1,)


@pytest.mark.django_db(transaction=True)
async def test_a_coroutine_may_flush_as_well() -> None:
    await store.asave(draft())
    assert await llmcache.aflush()


@pytest.mark.django_db(transaction=True)
def test_what_could_not_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.flusher, "_write", lambda is_same: False)
    assert not llmcache.flush()


@pytest.mark.parametrize("seconds", [-1, True, float("nan")])
def test_a_time_that_cannot_be_meant_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        llmcache.flush(seconds)
