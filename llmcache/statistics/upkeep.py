"""What is to be done to the ledger from time to time; the task and the command do nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from llmcache.store import history, rollup, runs

# So long the hours are told apart. (A month that is compared with the one before needs the hours of
# 31 days: that is where the one before ends.)
HOURS_KEPT: Final = timedelta(days=32)


def roll_up_usage() -> int:
    """Add the ledger's old hours up into days, and count how much there is in each namespace.

    What entries were served on days that no page shows any more is forgotten.

    It may be run again at any time, and by several processes at once: no sum changes. Nothing
    depends on it but the size of the ledger, and what the dashboard says of large stores.

    Returns:
        How many rows of hours have become part of a day.

    Raises:
        django.db.DatabaseError: when the database cannot do it.
    """
    with runs.noted(runs.ROLL_UP_USAGE) as run:
        run.done = rollup.add_up_days(first_day_of_hours())
        rollup.count_namespaces()
        history.forget_old_days()
    return run.done


def first_day_of_hours() -> date:
    """The day from which on hours are told apart."""
    return (datetime.now(UTC) - HOURS_KEPT).date()
