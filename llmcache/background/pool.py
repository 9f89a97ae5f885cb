"""A few daemon threads that do I/O beside the callers of the cache.

Not a `ThreadPoolExecutor`: that one waits for its threads when the process ends, and one that is
waiting for a database that does not answer would keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from django.db import connections

from llmcache.background.forks import around_forks, now_and_in_children

T = TypeVar("T")

# A thread without work ends, and closes its connections.
IDLE_SECONDS: Final = 5.0
# A thread that has been at one piece of work for longer waits for a server that may never answer.
# Another takes its place; so many times as many threads there are at most.
STUCK_SECONDS: Final = 2.0
MOST_STUCK: Final = 2
# More than that is not kept waiting: it would be memory without end.
MOST_WAITING: Final = 10_000
# A fork waits at most so long for work that is under way.
FORK_SECONDS: Final = 1.0


class TooMuchIsWaiting(Exception):
    """The threads cannot keep up, or wait for a server that does not answer."""


class NoThread(Exception):
    """No thread can be started, and none is there. Who wanted work done has to do it."""


def start_thread(work: Callable[[], object], name: str) -> threading.Thread | None:
    """Have `work` done on a daemon thread; None where none can be started.

    That is where the system allows no more, and from Python 3.12 on while the interpreter ends.
    """
    thread = threading.Thread(target=work, name=f"llmcache {name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Workers:
    """At most `threads` threads, started when there is work; each ends with its connections."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        now_and_in_children(self.start_anew)
        # A connection that both processes had would be closed by the first to end. And the
        # libraries of databases have locks of their own: one that a thread holds at that moment
        # (SQLite's, while it opens a file) would stay locked in the child for ever.
        around_forks(self.pause, self.resume)

    def start_anew(self) -> None:
        """At the start, and in a forked child, which has none of the threads."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._there: set[threading.Thread] = set()
        # How many wish that nobody works here at the moment.
        self._pauses = 0
        # When each busy thread began what it is at.
        self._busy: dict[threading.Thread, float] = {}

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done soon. Raises `TooMuchIsWaiting` and `NoThread`."""
        future: Future[T] = Future()
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise TooMuchIsWaiting(f"{MOST_WAITING} pieces of work")
            self._waiting.append((future, work))
            if self._idle >= len(self._waiting):
                self._changed.notify_all()
            elif self._may_start() and not self._start() and not (self._idle or self._busy):
                self._waiting.pop()
                raise NoThread
        return future

    def drain(self, seconds: float) -> bool:
        """Wait until all that was submitted is done, but no longer than that; whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._busy, timeout=seconds
            )

    def pause(self) -> None:
        """Have all threads end once they have done what they are at, and begin nothing more.

        Waits for that, but not for long. What is submitted waits for `resume`.
        """
        with self._changed:
            self._pauses += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._there, timeout=FORK_SECONDS)

    def resume(self) -> None:
        """Go on with what has been waiting since `pause`."""
        with self._changed:
            self._pauses -= 1
            for _ in self._waiting:
                if self._may_start():
                    self._start()

    def _may_start(self) -> bool:
        if self._pauses:
            return False
        oldest = time.monotonic() - STUCK_SECONDS
        working = sum(since > oldest for since in self._busy.values())
        there_is_room = len(self._there) < self._threads * MOST_STUCK
        return self._idle + working < self._threads and there_is_room

    def _start(self) -> bool:
        """Whether there is one more; it begins once the lock is free."""
        thread = start_thread(self._work, self._name)
        if thread is not None:
            # (busy from the start: the next submit must not take it for one that is idle)
            self._busy[thread] = time.monotonic()
            self._there.add(thread)
        return thread is not None

    def _work(self) -> None:
        try:
            while job := self._next():
                future, work = job
                if future.set_running_or_notify_cancel():
                    carry_out(future, work)
                del job, future, work  # what they refer to is not kept until there is more
        finally:
            connections.close_all()
            with self._changed:
                self._there.discard(threading.current_thread())
                self._changed.notify_all()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """The next piece of work; None when there was none for a while."""
        here = threading.current_thread()
        with self._changed:
            self._busy.pop(here, None)
            self._changed.notify_all()  # (for `drain`)
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._pauses, timeout=IDLE_SECONDS)
            self._idle -= 1
            if self._pauses or not self._waiting:
                return None
            self._busy[here] = time.monotonic()
            return self._waiting.popleft()


def carry_out(future: Future[Any], work: Callable[[], Any]) -> None:
    """Do `work`, and let those know who wait for `future`."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for it has it raised
        future.set_exception(error)
    else:
        future.set_result(result)
