"""The commands that run in the foreground, from their start to Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from project.management.commands.demo import free_port
from tests.support.paths import ROOT


@contextmanager
def running(tmp_path: Path, *command: str) -> Iterator[tuple[psutil.Popen, Path]]:
    """A command without a terminal, on databases of its own."""
    log = tmp_path / "log"
    own = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/site.sqlite3",
        "CELERY_BROKER_URL": "memory://",
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "PYTHONUNBUFFERED": "1",
    }
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("OPENAI_", "REDIS_URL"))}
    with log.open("w") as output:
        process = psutil.Popen(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=kept | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
    finally:
        if process.is_running():
            process.kill()
        process.wait()


def said(log: Path, pattern: str) -> str:
    """What the command prints, as soon as it does."""
    for _ in range(600):
        if match := re.search(pattern, log.read_text()):
            return match[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def get(url: str) -> str:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return str(response.read(), "utf-8")
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody answers at {url}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_leaves_nothing_behind(tmp_path, number):
    with running(tmp_path, "demo", "--latency", "0") as (process, log):
        page = said(log, r"The page +(http://127.0.0.1:\d+/)\n")
        model = said(log, r"The model +(http://127.0.0.1:\d+/v1)")
        assert said(log, r"password +(\S{12})")
        assert "This is a stand-in" in get(page)
        assert "stand-in" in get(f"{model}/models")
        children = process.children(recursive=True)
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert not any(child.is_running() for child in children)
        assert not re.search("Traceback|Warning|WARNING|Error", log.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_stand_in_runs_until_it_is_interrupted(tmp_path, number):
    with running(tmp_path, "standin", "--port", "0", "--latency", "0") as (process, log):
        assert "stand-in" in get(said(log, r"OpenAI protocol: +(\S+)\n") + "/models")
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_port_in_use_is_explained(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(tmp_path, "standin", "--port", port) as (process, log):
            assert process.wait(timeout=60) == 1
            assert f"Cannot listen on port {port}" in log.read_text()


def test_a_free_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port
