"""Removing what has expired, in batches; the task and the command do nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from django.utils import timezone

from llmcache import signals
from llmcache.exceptions import InvalidArgument
from llmcache.store import durable, placement
from llmcache.store.removal import remove_batch

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

BATCH_ROWS: Final = 2000


def expire_entries(
    *, batch_size: int = BATCH_ROWS, max_batches: int | None = None, dry_run: bool = False
) -> int:
    """Remove the entries that have expired, each batch in a short transaction of its own.

    It may be run again at any time, and by several processes at once: rows that another run
    holds are left to it. Nothing depends on it but disk space: an expired entry is not served.

    Args:
        batch_size: rows in one transaction, 1 to 2,000.
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
    removed = _remove(now, batch_size, max_batches)
    if removed:
        signals.send(signals.entries_expired, expire_entries, entries=removed)
    return removed


def _remove(now: datetime, batch_size: int, max_batches: int | None) -> int:
    def expired(rows: CacheEntryQuerySet) -> CacheEntryQuerySet:
        return rows.expired(now)

    removed, batches = 0, 0
    while max_batches is None or batches < max_batches:
        # Hot copies need no removing: they were given no longer than the entry had.
        batch = remove_batch(expired, batch_size, recheck=expired, skip_locked=True)
        if not batch.keys:
            break
        removed, batches = removed + batch.removed, batches + 1
    return removed


def _count(now: datetime, limit: int | None) -> int:
    return placement.run(lambda: durable.entries().expired(now)[:limit].count())
