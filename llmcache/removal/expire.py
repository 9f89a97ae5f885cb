"""Removing what has expired, in batches; the task and the command do nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

from django.db import connections, transaction
from django.utils import timezone

from llmcache import signals
from llmcache.background import database, transactions
from llmcache.exceptions import InvalidArgument
from llmcache.store import batches, evictions
from llmcache.store.rows import tier as durable
from llmcache.usage import task_runs

# The most rows that are removed in one transaction.
BATCH_ROWS: Final = 5000
# How long the audit trail of invalidations is kept.
AUDIT_KEPT: Final = timedelta(days=365)
# How long the ledger is kept.
USAGE_KEPT: Final = timedelta(days=3 * 366)
# Whoever waits for a lease may still look at how it ended.
LEASE_KEPT: Final = timedelta(hours=1)
# Whoever has asked again has looked at the answer by then.
PROPOSAL_KEPT: Final = timedelta(days=1)
# So many small rows go in one transaction.
SMALL_ROWS: Final = 1000


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
        most = None if max_batches is None else batch_size * max_batches
        return database.run(durable.entries().outlived(now)[:most].count, patience=None)
    pace = batches.Pace(most=batch_size)
    removed_in_batches = (
        batch.removed
        for window in batches.outlived_windows(now)
        for batch in batches.remove_outlived(window, now, pace)
    )
    with task_runs.recorded(task_runs.EXPIRE_ENTRIES) as run:
        for removed in islice(removed_in_batches, max_batches):
            run.done += removed
        _keep_house(now)
    if run.done:
        signals.send(signals.entries_expired, expire_entries, entries=run.done)
    return run.done


def _keep_house(now: datetime) -> None:
    """Remove small rows that have outlived their use, and that nobody else removes."""
    _remove_all("Lease", expires_at__lt=now - LEASE_KEPT)
    _remove_all("Proposal", created_at__lt=now - PROPOSAL_KEPT)
    # The copies have expired by themselves.
    _remove_all("PendingEviction", until__lt=now - evictions.CLOCK_SLACK)
    _remove_all("Invalidation", started_at__lt=now - AUDIT_KEPT)
    _remove_all("UsageHour", hours=24, day__lt=(now - USAGE_KEPT).date())


def _remove_all(model: str, **criteria: Any) -> None:
    while database.run(partial(_remove_some, model, criteria), patience=None) == SMALL_ROWS:
        pass


def _remove_some(model: str, criteria: dict[str, Any]) -> int:
    alias = transactions.database_alias()
    rows = transactions.rows(model)
    can_skip = connections[alias].features.has_select_for_update_skip_locked
    with transaction.atomic(using=alias):
        doomed = rows.filter(**criteria).order_by("pk")
        if can_skip:
            doomed = doomed.select_for_update(skip_locked=True)
        ids = list(doomed.values_list("pk", flat=True)[:SMALL_ROWS])
        # (asked again: where nothing was locked, a lease may have been renewed)
        rows.filter(pk__in=ids, **criteria).delete()
    return len(ids)
