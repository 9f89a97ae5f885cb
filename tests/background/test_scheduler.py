"""What is done later, or again and again: when, by whom, and what a fork and the end make of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmcache.background import pool, scheduler
from llmcache.background.scheduler import Scheduler

PATIENCE_SECONDS = 20.0
# Nothing that a test waits for is due only then.
LONG = 3600.0


@pytest.fixture
def its() -> Iterator[Scheduler]:
    own = Scheduler()
    yield own
    own.stop()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def noting(done: list[Any], what: Any) -> Callable[[], None]:
    return lambda: done.append(what)


def test_what_is_due_first_is_done_first(its: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(its, "_workers", pool.Workers("one", 1))
    done: list[int] = []
    for number in (3, 1, 2):
        its.later(number / 20, noting(done, number))
    until(lambda: len(done) == 3)
    assert done == [1, 2, 3]


def test_nothing_is_done_before_it_is_due(its: Scheduler) -> None:
    done: list[float] = []
    began = time.monotonic()
    its.later(0.05, lambda: done.append(time.monotonic()))
    until(lambda: done)
    assert done[0] - began >= 0.05


def test_it_is_done_again_after_what_it_returns(its: Scheduler) -> None:
    pauses = iter([0.01, 0.0, None])
    done: list[float | None] = []

    def work() -> float | None:
        done.append(next(pauses))
        return done[-1]

    its.later(0.0, work)
    until(lambda: len(done) == 3)
    assert not its._jobs


def test_who_cancels_it_has_it_done_no_more(its: Scheduler) -> None:
    done, other = list[int](), list[int]()

    def work() -> float:
        done.append(1)
        return 0.001

    job = its.later(0.0, work)
    assert job is not None
    until(lambda: len(done) > 3)
    job.cancel()
    its._workers.drain(PATIENCE_SECONDS)
    count = len(done)
    its.later(0.05, noting(other, 1))
    until(lambda: other)
    assert len(done) == count


def test_what_was_cancelled_wakes_nobody_and_is_forgotten(its: Scheduler) -> None:
    for _ in range(100):
        job = its.later(LONG, pytest.fail)
        assert job is not None
        job.cancel()
    its.later(0.0, lambda: None)
    until(lambda: not its._jobs)


def test_what_hangs_holds_nobody_up(its: Scheduler) -> None:
    goes_on, done = threading.Event(), list[int]()
    its.later(0.0, lambda: goes_on.wait(PATIENCE_SECONDS) and None)
    its.later(0.01, noting(done, 1))
    until(lambda: done)
    goes_on.set()


def test_there_is_no_thread_without_anything_to_come(
    its: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "IDLE_SECONDS", 0.01)
    done: list[int] = []
    assert its._thread is None
    for number in (1, 2):
        its.later(0.0, noting(done, number))
        until(lambda: its._thread is None)
    its._workers.drain(PATIENCE_SECONDS)
    assert sorted(done) == [1, 2]


def test_a_system_that_refuses_threads_is_told(
    its: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scheduler, "start_thread", lambda *_: None)
        assert its.later(0.0, pytest.fail) is None
    done: list[int] = []
    its.later(0.0, noting(done, 1))  # it allows them again
    until(lambda: done)


def test_where_no_other_thread_is_to_be_had_it_does_the_work(
    its: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "start_thread", lambda *_: None)
    names: list[str] = []
    its.later(0.0, lambda: names.append(threading.current_thread().name))
    until(lambda: names)
    assert names == ["llmcache scheduler"]


def test_what_nobody_has_time_for_is_tried_again(
    its: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "TOO_BUSY_SECONDS", 0.01)
    submit, refused, done = its._workers.submit, list[int](), list[int]()

    def refuse_twice(work: Callable[[], object]) -> object:
        if len(refused) < 2:
            refused.append(1)
            raise pool.TooMuchIsWaiting
        return submit(work)

    monkeypatch.setattr(its._workers, "submit", refuse_twice)
    its.later(0.0, noting(done, 1))
    until(lambda: done)
    assert len(refused) == 2


def test_nothing_is_done_once_it_was_stopped(its: Scheduler) -> None:
    its.later(0.05, pytest.fail)
    its.stop()
    assert its._thread is None
    its.later(0.0, pytest.fail)
    time.sleep(0.1)
    assert its._thread is None


def test_after_the_end_it_does_what_is_planned_anew(its: Scheduler) -> None:
    done: list[Any] = []
    its.later(LONG, noting(done, "before"))
    its.end()
    assert its._thread is None
    its.later(0.0, noting(done, "after"))
    until(lambda: done == ["after"])


def ours() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "llmcache scheduler"]


def test_a_fork_takes_no_thread_along_and_nothing_that_is_to_come() -> None:
    # (what earlier tests have left is no concern of this one)
    scheduler._scheduler.stop()
    scheduler._scheduler.start_anew()
    planned = scheduler.later(LONG, pytest.fail)
    receiver, sender = os.pipe()
    forked = os.fork()
    if forked == 0:
        try:
            mine: list[str] = []
            threads = [*ours(), *map(str, scheduler._scheduler._jobs)]
            scheduler.later(0.0, noting(mine, "by the child"))
            until(lambda: mine)
            os.write(sender, repr([*threads, *mine]).encode())
            os._exit(0)
        finally:
            os._exit(99)
    _, status = os.waitpid(forked, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert os.read(receiver, 1000).decode() == "['by the child']"
    assert planned in [job for _, _, job in scheduler._scheduler._jobs]
    scheduler._scheduler.start_anew()


def test_before_a_fork_the_thread_ends_and_after_it_there_is_one_again(its: Scheduler) -> None:
    done: list[int] = []
    its.later(0.05, noting(done, 1))
    its.stop()
    assert its._thread is None
    its.later(0.05, noting(done, 2))
    assert its._thread is None
    its.go_on()
    until(lambda: len(done) == 2)
