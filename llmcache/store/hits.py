"""How often each entry was served: counted in the process, written to the rows in batches.

A hit writes nothing to the database. Counts are written once `FLUSH_COUNT` entries have some, and
`FLUSH_SECONDS` after the first hit that is not written yet; also when the process ends. What a
process that is killed had not written is lost: at most that much.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import Final

from django.db.models import Case, F, Value, When

from llmcache.outcomes import Tier
from llmcache.store import durable, placement
from llmcache.store.safety import failing_safe

FLUSH_COUNT: Final = 500
FLUSH_SECONDS: Final = 2.0


class _Counts:
    """Hits since the last flush: how many and when the last one was, for each key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    def add(self, key: str) -> int:
        """Count a hit; how many entries have hits now."""
        with self._lock:
            count, _ = self._counts.get(key, (0, 0.0))
            self._counts[key] = (count + 1, time.time())
            return len(self._counts)

    def take(self) -> dict[str, tuple[int, float]]:
        with self._lock:
            counts, self._counts = self._counts, {}
            return counts


_counts = _Counts()
_timer: threading.Timer | None = None
# The name of the database whose entries were counted.
_database: object = None


def count(key: str) -> None:
    """Note that the entry under `key` was served once."""
    entries = _counts.add(key)
    if entries == 1:
        _note_database()
        if _timer is None or not _timer.is_alive():
            _flush_after(FLUSH_SECONDS)
    elif entries == FLUSH_COUNT:
        _flush_soon()


def flush() -> None:
    """Write the counts to the rows now."""
    counts = _counts.take()
    # What was counted in a test database is not for the real one, which has its alias back.
    if counts and _database == placement.database_name():
        with failing_safe(Tier.DURABLE, "count hits in"):
            placement.run(lambda: _write(counts))


def _write(counts: dict[str, tuple[int, float]]) -> None:
    # In the order of the keys: two processes that lock the same rows do not wait for each other.
    keys = sorted(counts)
    durable.entries().filter(key__in=keys).update(
        hits=F("hits") + Case(*(When(key=key, then=Value(counts[key][0])) for key in keys)),
        last_hit_at=Case(
            *(When(key=key, then=Value(durable.moment(counts[key][1]))) for key in keys)
        ),
    )


def _note_database() -> None:
    global _database
    with failing_safe(Tier.DURABLE, "count hits in"):
        _database = placement.database_name()


def _flush_after(seconds: float) -> None:
    global _timer
    with failing_safe(Tier.DURABLE, "count hits in"):
        _timer = threading.Timer(seconds, _flush_soon)
        _timer.daemon = True
        _timer.start()


def _flush_soon() -> None:
    with failing_safe(Tier.DURABLE, "count hits in"):
        placement.later(flush)


def _flush_at_exit() -> None:
    if _timer is not None:
        _timer.cancel()
    flush()


def _start_anew() -> None:
    """In a forked child: the counts, the lock and the timer are the parent's."""
    global _counts, _timer
    _counts, _timer = _Counts(), None


os.register_at_fork(after_in_child=_start_anew)
atexit.register(_flush_at_exit)
