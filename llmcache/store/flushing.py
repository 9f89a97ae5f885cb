"""Writing, behind the callers, what has gathered in the process: after a while, and at its end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from llmcache.outcomes import Tier
from llmcache.store import placement
from llmcache.store.exits import at_exit
from llmcache.store.safety import reporting

FLUSH_SECONDS: Final = 2.0


class Flusher:
    """Has `write` called `FLUSH_SECONDS` after it was woken, and when the process ends.

    `write` runs on the threads that write rows. Its argument says whether what has gathered is for
    the database that is there now: what was counted in a test database is not for the real one,
    which has its alias back. Under a test runner nothing is written by itself: a test's transaction
    would not have it.

    A forked child has none of what its parent had gathered: `forget` is called there.
    """

    def __init__(
        self, operation: str, write: Callable[[bool], object], forget: Callable[[], object]
    ) -> None:
        self._operation = operation
        self._write = write
        self._forget = forget
        self._database: object = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        #: Whether nothing will be written before somebody wakes it.
        self.is_asleep = True
        os.register_at_fork(after_in_child=self._start_anew)
        at_exit(self._at_exit)

    def wake(self) -> None:
        """There is something to be written. Raises nothing, and waits for nobody."""
        # (who finds it locked finds another one waking it)
        if self._lock.acquire(blocking=False):
            try:
                if self.is_asleep:
                    self._begin()
            finally:
                self._lock.release()

    def hurry(self) -> None:
        """There is so much to be written that it should not wait."""
        if placement.may_put_off():
            self._flush_soon()

    def flush(self) -> None:
        """Write now."""
        self.is_asleep = True
        with reporting(Tier.DURABLE, self._operation):
            is_same = self._database in (None, placement.database_name())
            work = partial(self._write, is_same)
            placement.run(work, patience=placement.WRITE_SECONDS, writing=True)

    def _begin(self) -> None:
        with reporting(Tier.DURABLE, self._operation):
            self._database = placement.database_name()
            if placement.may_put_off():
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush_soon)
                self._timer.daemon = True
                self._timer.start()
                self.is_asleep = False

    def _flush_soon(self) -> None:
        with reporting(Tier.DURABLE, self._operation):
            placement.later(self.flush, writing=True)

    def _at_exit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if placement.may_put_off():
            self.flush()

    def _start_anew(self) -> None:
        self._lock, self._timer, self.is_asleep = threading.Lock(), None, True
        self._forget()
