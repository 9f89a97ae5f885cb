"""What is done later, or again and again: one thread knows when, and has others do it.

It does no work itself, so nothing that takes long holds the rest up. It is there while something
is to come, and for a moment longer.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from llmcache.background.forks import around_forks, now_and_in_children
from llmcache.background.pool import (
    FORK_SECONDS,
    NoThread,
    TooMuchIsWaiting,
    Workers,
    start_thread,
)
from llmcache.background.shutdown import at_exit

# Each may wait for another server: the probes of two tiers, what is removed from them, leases.
THREADS: Final = 4
# Without anything to come, the thread ends after so long.
IDLE_SECONDS: Final = 5.0
# What nobody could be had for is due again after so long.
TOO_BUSY_SECONDS: Final = 1.0

# Does something, and returns after how many seconds it is to be done again; None: not any more.
Work = Callable[[], float | None]


@dataclass(slots=True, eq=False)
class Job:
    """Something to be done later; `work` None: it was cancelled."""

    work: Work | None

    def cancel(self) -> None:
        """Do not do it, or not again. Takes no lock; what is under way ends by itself."""
        self.work = None


class Scheduler:
    """The jobs of this process, and the thread that waits for the next one."""

    def __init__(self) -> None:
        self._workers = Workers("later", THREADS)
        self.start_anew()

    def start_anew(self) -> None:
        """At the start, and in a forked child: what its parent has planned is not the child's."""
        self._changed = threading.Condition()
        # When each is due. (The number: two that are due at once are not compared.)
        self._jobs: list[tuple[float, int, Job]] = []
        self._number = count()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def later(self, seconds: float, work: Work) -> Job | None:
        """Have `work` done after so many seconds, on another thread; again after those it returns.

        It must not raise. None where no thread can be had for it.
        """
        job = Job(work)
        if self._add(seconds, job):
            return job
        job.cancel()
        return None

    def stop(self) -> None:
        """Have nothing done any more, until `go_on`."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is None, FORK_SECONDS)

    def end(self) -> None:
        """Before the process ends: have no thread, unless something is planned after this.

        (What is told to a process that its end has come, is told to some that go on.)
        """
        self.stop()
        self._is_stopped = False

    def go_on(self) -> None:
        """After a fork, in the parent."""
        with self._changed:
            self._is_stopped = False
            if self._jobs:
                self._start()

    def _add(self, seconds: float, job: Job) -> bool:
        with self._changed:
            entry = time.monotonic() + seconds, next(self._number), job
            heapq.heappush(self._jobs, entry)
            if self._jobs[0] is entry:
                self._changed.notify_all()
            return self._is_stopped or self._thread is not None or self._start()

    def _start(self) -> bool:
        if self._thread is None:
            self._thread = start_thread(self._submit_all, "scheduler")
        return self._thread is not None

    def _submit_all(self) -> None:
        while job := self._next():
            work = partial(self._do, job)
            try:
                self._workers.submit(work)
            except TooMuchIsWaiting:
                self._add(TOO_BUSY_SECONDS, job)
            except NoThread:
                work()

    def _next(self) -> Job | None:
        """The next job that is due; None when there was none for a while."""
        with self._changed:
            while not self._is_stopped:
                while self._jobs and self._jobs[0][-1].work is None:
                    heapq.heappop(self._jobs)
                wait = self._jobs[0][0] - time.monotonic() if self._jobs else IDLE_SECONDS
                if wait <= 0:
                    return heapq.heappop(self._jobs)[-1]
                if not (self._changed.wait(wait) or self._jobs):
                    break
            self._thread = None
            self._changed.notify_all()  # (for `stop`)
            return None

    def _do(self, job: Job) -> None:
        seconds = None if job.work is None else job.work()
        if seconds is not None:
            self._add(seconds, job)


_scheduler: Final = Scheduler()
later: Final = _scheduler.later
now_and_in_children(_scheduler.start_anew)
around_forks(_scheduler.stop, _scheduler.go_on)
at_exit(_scheduler.end)
