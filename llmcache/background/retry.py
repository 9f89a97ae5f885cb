"""Work that met a deadlock or a busy database is done again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import OperationalError

from llmcache.background import database
from llmcache.breakers import is_up
from llmcache.outcomes import Tier

T = TypeVar("T")

# What met a deadlock or a busy SQLite is tried so often, and given so long.
ATTEMPTS: Final = 8
PAUSE_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 30.0


def persistently(work: Callable[[], T]) -> T:
    """Do `work` that writes, again where it met a deadlock or a busy SQLite.

    Raises what the database raises, after some attempts.
    """
    # A database whose circuit is open does not answer, or refuses: that is found out sooner.
    patience = PATIENCE_SECONDS if is_up(Tier.DURABLE) else database.WRITE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return database.run_removal(work, patience=patience)
        except OperationalError:
            if attempt == ATTEMPTS:
                raise
            # (two who met each other are not to meet again)
            time.sleep(random.uniform(0, attempt * PAUSE_SECONDS))  # noqa: S311 - no secret
    raise AssertionError("unreachable")
