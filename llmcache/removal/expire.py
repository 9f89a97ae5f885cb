"""Removing what has expired, in batches; the task and the command do nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from django.utils import timezone

from llmcache import signals
from llmcache.background import database
from llmcache.exceptions import InvalidArgument
from llmcache.removal import housekeeping
from llmcache.store import batches
from llmcache.store.rows import tier as durable
from llmcache.usage import task_runs

# The most rows that are removed in one transaction.
BATCH_ROWS: Final = 5000
# How long the audit trail of invalidations is kept.
AUDIT_KEPT: Final = timedelta(days=365)
# How long the ledger is kept.
USAGE_KEPT: Final = timedelta(days=3 * 366)


def expire_entries(
    *, batch_size: int = BATCH_ROWS, max_batches: int | None = None, dry_run: bool = False
) -> int:
    """Remove the entries that have expired, each batch in a short transaction of its own.

    A batch takes as many rows as the database removes in about 20 ms. It may be run again at any
    time, and by several processes at once: rows that another run holds are left to it. Nothing
    depends on it but disk space: an expired entry is not served. One that may still be served stale
    stays until it may not any more.

    What else has outlived its use goes with it: leases of processes that were killed, notes about
    hot copies that have expired by themselves, invalidations of more than 365 days ago, and what
    the ledger says of days more than three years ago.

    Args:
        batch_size: the most rows in one transaction, 1 to 5,000.
        max_batches: stop after so many batches; None: when nothing is left.
        dry_run: count, and remove nothing.

    Returns:
        How many entries were removed, or would be.

    Raises:
        InvalidArgument: when a number is out of range.
        django.db.DatabaseError: when the database cannot do it.
    """
    if not 1 <= batch_size <= BATCH_ROWS:
        raise InvalidArgument(f"batch_size is 1 to {BATCH_ROWS} rows, not {batch_size}.")
    if max_batches is not None and max_batches < 0:
        raise InvalidArgument(f"max_batches is 0 or more, or None; not {max_batches}.")
    now = timezone.now()
    if dry_run:
        return _count(now, None if max_batches is None else batch_size * max_batches)
    with task_runs.recorded(task_runs.EXPIRE_ENTRIES) as run:
        for rows in islice(_remove(now, batch_size), max_batches):
            run.done += rows
        housekeeping.remove(now, audit_before=now - AUDIT_KEPT, usage_before=now - USAGE_KEPT)
    removed = run.done
    if removed:
        signals.send(signals.entries_expired, expire_entries, entries=removed)
    return removed


def _remove(now: datetime, batch_size: int) -> Iterator[int]:
    """How many entries each batch removed."""
    pace = batches.Pace(most=batch_size)
    for window in batches.outlived_windows(now):
        for batch in batches.remove_outlived(window, now, pace):
            yield batch.removed


def _count(now: datetime, limit: int | None) -> int:
    return database.run(lambda: durable.entries().outlived(now)[:limit].count(), patience=None)
