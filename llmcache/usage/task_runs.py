"""When each task was run last, and what became of it: a row for each, for people to see.

Nobody relies on these rows. A row that cannot be written is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.discretion import without_content
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import reporting

EXPIRE_ENTRIES: Final = "expire_entries"
FINISH_EVICTIONS: Final = "finish_evictions"
ROLL_UP_USAGE: Final = "roll_up_usage"


@dataclass(slots=True)
class Run:
    """One run; whoever runs the task says how many rows it has dealt with."""

    done: int = 0


@contextmanager
def recorded(task: str) -> Iterator[Run]:
    """Write down that `task` was run in the block, and what the block raised."""
    run, started_at, started = Run(), timezone.now(), time.perf_counter()
    error = ""
    try:
        yield run
    except BaseException as raised:
        error = without_content(raised)
        raise
    finally:
        facts = {
            "started_at": started_at,
            "seconds": time.perf_counter() - started,
            "done": run.done,
            "error": error,
        }
        with reporting(Tier.DURABLE, "note the run of a task in"):
            work = partial(rows().update_or_create, task=task, defaults=facts)
            database.run_removal(work, patience=database.WRITE_SECONDS)


def rows() -> Any:
    """The last run of each task."""
    return transactions.rows("TaskRun")
