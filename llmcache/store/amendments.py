"""Changing what is known of an entry whose answer stays: its time, its pin, its tags.

The time of an entry is in its row, and sealed with its answer, so that no copy outlives it. Both
are written anew, under the lock of the row, and the hot copy goes: the next lookup makes another
one. As with a removal, a note in the same transaction sees to that when the hot tier is down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction

from llmcache.background import database, transactions
from llmcache.codec.envelope import ANSWER, reseal
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.store import evictions
from llmcache.store.rows import locks
from llmcache.store.rows import tier as durable
from llmcache.store.rows.columns import moment

if TYPE_CHECKING:
    from llmcache.models import CacheEntry


def set_time(pk: int, ttl: float | None, *, pinned: bool = False) -> set[Tier] | None:
    """Have the entry expire `ttl` seconds from now; None: never. `pinned`: nor what replaces it.

    Returns the tiers that may still have it as it was; None when the entry is gone. Raises
    `CorruptEntry` when it cannot be read, and so cannot be sealed anew.
    """

    def retime(row: CacheEntry) -> int | None:
        expires = None if ttl is None else time.time() + ttl
        ends = None if expires is None else moment(expires)
        durable.entries().filter(pk=row.pk).update(
            payload=reseal(ANSWER, row.key, bytes(row.payload), expires=expires),
            expires_at=ends,
            stale_until=None if ends is None else ends + _stale_window(row),
            pinned=pinned,
        )
        return evictions.record([row.key])

    return _amend(pk, retime)


def set_tags(pk: int, tags: Collection[str]) -> bool:
    """Give the entry these labels, in the place of those that it has; False when it is gone."""

    def retag(row: CacheEntry) -> None:
        labels: Any = row.tags
        labels.all().delete()
        labels.bulk_create([labels.model(entry=row, tag=tag) for tag in sorted(tags)])

    return _amend(pk, retag) is not None


def _amend(pk: int, change: Callable[[CacheEntry], int | None]) -> set[Tier] | None:
    """Carry out `change`, which gives the note about the hot copies that are to go."""

    def work() -> tuple[str, int | None] | None:
        alias = transactions.database_alias()
        with transaction.atomic(using=alias):
            rows = locks.locked(durable.entries().filter(pk=pk), alias)
            row = rows.only("key", "payload", "expires_at", "stale_until").first()
            return None if row is None else (row.key, change(row))

    done = database.run_removal(work, patience=database.WRITE_SECONDS)
    return None if done is None else evictions.evict_when_committed([done[0]], done[1])


def _stale_window(row: CacheEntry) -> timedelta:
    """How long it may be served after it has expired: as was said of it, or as the settings say."""
    if row.expires_at is not None:
        return max((row.stale_until or row.expires_at) - row.expires_at, timedelta())
    return timedelta(seconds=max(settings.stale_while_revalidate, settings.stale_if_error))
