"""Writing, behind the callers, what has gathered in the process: after a while, and at its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from asgiref.sync import sync_to_async

from llmcache.background import database, scheduler, transactions
from llmcache.background.forks import now_and_in_children
from llmcache.background.shutdown import at_exit, prepare
from llmcache.exceptions import InvalidArgument
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import reporting

FLUSH_SECONDS: Final = 2.0


def flush(seconds: float = 2.0) -> bool:
    """Write what this process still has to write: answers that were put off, and what was counted.

    It is written by itself, some seconds later and when the process ends. This is for processes
    that end otherwise, by a signal or by ``os._exit``::

        # gunicorn.conf.py
        def worker_exit(server, worker):
            llmcache.flush()

    `seconds`: it waits no longer than about that. True: all is written. False: the rest is written
    later, if the process goes on; as in a transaction on SQLite, which has to end before. Raises
    `InvalidArgument` for `seconds` below 0, and nothing else.
    """
    if isinstance(seconds, bool) or not seconds >= 0:
        raise InvalidArgument(f"seconds is a number, 0 or more; not {seconds!r}.")
    ends = time.monotonic() + seconds
    with reporting(Tier.DURABLE, "write"):
        if transactions.caller_is_the_writer():
            return False
        written = [each.flush(max(0.0, ends - time.monotonic())) for each in _flushers]
        return database.finish(max(0.0, ends - time.monotonic())) and all(written)
    return False


async def aflush(seconds: float = 2.0) -> bool:
    """`flush` for a coroutine, as when the lifespan of an ASGI application ends."""
    database.running_loop()
    return await sync_to_async(flush)(seconds)


class Flusher:
    """Has `write` called `FLUSH_SECONDS` after it was woken, and when the process ends.

    `write` runs on the threads that write rows, and tells whether it could. Its argument says
    whether what has gathered is for the database that is there now: what was counted in a test
    database is not for the real one, which has its alias back. Under a test runner nothing is
    written by itself: a test's transaction would not have it.

    A forked child has none of what its parent had gathered: `forget` is called there.
    """

    def __init__(
        self, operation: str, write: Callable[[bool], bool], forget: Callable[[], object]
    ) -> None:
        self._operation = operation
        self._write = write
        self._forget = forget
        self._database: object = None
        self._job: scheduler.Job | None
        now_and_in_children(self._start_anew)
        at_exit(self._at_exit)
        _flushers.append(self)

    def wake(self) -> None:
        """There is something to be written. Raises nothing, and waits for nobody."""
        # (who finds it locked finds another one waking it)
        if self._lock.acquire(blocking=False):
            try:
                if self.is_asleep:
                    self._start()
            finally:
                self._lock.release()

    def flush(self, seconds: float = database.WRITE_SECONDS) -> bool:
        """Write now, and wait for that no longer than so many seconds; whether it is written."""
        self.is_asleep = True
        with reporting(Tier.DURABLE, self._operation):
            is_same = self._database in (None, transactions.database_name())
            work = partial(self._write, is_same)
            return database.run(work, patience=seconds, writing=True)
        return False

    def _start(self) -> None:
        with reporting(Tier.DURABLE, self._operation):
            self._database = transactions.database_name()
            if database.may_put_off():
                prepare()
                self._job = scheduler.later(FLUSH_SECONDS, self._flush_soon)
                self.is_asleep = self._job is None

    def _flush_soon(self) -> None:
        with reporting(Tier.DURABLE, self._operation):
            database.later(self.flush, writing=True)

    def _at_exit(self) -> None:
        if database.may_put_off() and self._has_hurried():
            self.flush()

    def _has_hurried(self) -> bool:
        """Whether what is still to come was done, or was not there.

        On a thread that there is already: no other one may be had any more, and a server that hangs
        must not hold up the end.
        """
        if self.is_asleep or self._job is None:
            return True
        self._job.cancel()
        is_done = threading.Event()

        def hurry() -> None:
            self._flush_soon()
            is_done.set()

        is_coming = scheduler.later(0.0, hurry) is not None
        return not is_coming or is_done.wait(database.EXIT_SECONDS / len(_flushers))

    def _start_anew(self) -> None:
        self._lock, self._job = threading.Lock(), None
        #: Whether nothing will be written before somebody wakes it.
        self.is_asleep = True
        self._forget()


_flushers: Final[list[Flusher]] = []
