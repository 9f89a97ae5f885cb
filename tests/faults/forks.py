"""A process that is using llmcache when it forks: as gunicorn does with its preload option."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

import llmcache
from tests.faults.model import Model, call_for, checksum

THREADS = 3
CALLS = 30
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Report:
    """What one of the processes saw, and the local ports of its connections to the servers."""

    answered: int
    wrong: list[str]
    ports: set[int]
    error: str = ""


def serve(line: Connection, *, forks: int, servers: list[int], busy: bool) -> list[Report]:
    """A task: use llmcache, fork (while threads are using it, if `busy`), and work on.

    `servers` are the ports of the databases and of Redis. The last report is that of the threads.
    """
    # (a fork while another thread imports something would hang: no fault of ours)
    _work(servers)
    stop, wrong = threading.Event(), list[str]()
    threads = [
        threading.Thread(target=_work_until, args=(stop, number, wrong))
        for number in range(THREADS if busy else 0)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    pipes = [_fork(servers) for _ in range(forks)]
    reports = [pickle.loads(_all_of(pipe)) for pipe in pipes]
    # What the forks have closed is theirs: this process has what it had.
    reports.append(_work(servers))
    stop.set()
    for thread in threads:
        thread.join()
    return [*reports, Report(0, wrong, set())]


def _fork(servers: list[int]) -> int:
    """Fork a worker; what it reports can be read from the pipe."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    try:
        os.write(writing, pickle.dumps(_reported(servers)))
    finally:
        os._exit(0)


def _reported(servers: list[int]) -> Report:
    try:
        return _work(servers)
    except BaseException:  # noqa: BLE001 - the parent raises it
        return Report(0, [], set(), traceback.format_exc())


def _work(servers: list[int]) -> Report:
    """Ask, find, invalidate; on a thread and on an event loop."""
    wrong: list[str] = []
    client = Model().client()
    questions = [f"worker {os.getpid()} asks {number}" for number in range(CALLS)]
    for question in questions * 2:
        _compare(question, client.create(**call_for(question)), wrong)
    asyncio.run(_awork(questions, wrong))
    if not _invalidate(llmcache.key_for(client, **call_for(questions[0]))):
        wrong.append("nothing was invalidated")
    return Report(3 * CALLS, wrong, _ports(servers))


def _invalidate(key: str) -> bool:
    """Whether the entry was removed. (Where many write to SQLite, it may be on its way still.)"""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        if llmcache.invalidate(keys=[key]).entries == 1:
            return True
        time.sleep(0.1)
    return False


async def _awork(questions: list[str], wrong: list[str]) -> None:
    client = Model().client(is_async=True)
    for question in questions:
        _compare(question, await client.create(**call_for(question)), wrong)


def _work_until(stop: threading.Event, number: int, wrong: list[str]) -> None:
    client, made = Model().client(), 0
    while not stop.is_set():
        made += 1
        question = f"thread {number} of {os.getpid()} asks {made // 2}"
        _compare(question, client.create(**call_for(question)), wrong)


def _compare(question: str, answer: Any, wrong: list[str]) -> None:
    if (answer.question, answer.number) != (question, checksum(question)):
        wrong.append(f"{question} -> {answer!r}")


def _ports(servers: list[int]) -> set[int]:
    # Connections of the parent that nobody here refers to any more are closed when they are found.
    gc.collect()
    connections = psutil.Process().net_connections(kind="tcp")
    joined = [end for end in connections if end.status == psutil.CONN_ESTABLISHED]
    return {end.laddr.port for end in joined if end.raddr.port in servers}


def _all_of(pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as file:
        return file.read()


def hit(question: str) -> None:
    """Ask once, and then again and again; the key and each hit are told on the standard output."""
    client = Model().client()
    client.create(**call_for(question))
    sys.stdout.write(f"{llmcache.key_for(client, **call_for(question))}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        client.create(**call_for(question))
        sys.stdout.write(f"{time.monotonic()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    import django
    from django.conf import settings

    django.setup()
    settings.LLMCACHE = {"DATABASE": "postgres", "CACHE": "redis"}
    hit(sys.argv[1])
