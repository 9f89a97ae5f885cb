"""Small rows that have outlived their use, and that nobody else removes."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import connections, transaction

from llmcache.background import database, transactions
from llmcache.store import evictions

BATCH_ROWS: Final = 1000
# Whoever waits for a lease may still look at how it ended.
LEASE_KEPT: Final = timedelta(hours=1)
# Whoever has asked again has looked at the answer by then.
PROPOSAL_KEPT: Final = timedelta(days=1)


def remove(now: datetime, *, audit_before: datetime, usage_before: datetime) -> None:
    """Remove what ended before `now` (leases, notes, proposals), old invalidations and usage."""
    _remove_all("Lease", expires_at__lt=now - LEASE_KEPT)
    _remove_all("Proposal", created_at__lt=now - PROPOSAL_KEPT)
    # The copies have expired by themselves.
    _remove_all("PendingEviction", until__lt=now - evictions.CLOCK_SLACK)
    _remove_all("Invalidation", started_at__lt=audit_before)
    _remove_all("UsageHour", hours=24, day__lt=usage_before.date())


def _remove_all(model: str, **criteria: Any) -> None:
    while database.run(partial(_remove_some, model, criteria), patience=None) == BATCH_ROWS:
        pass


def _remove_some(model: str, criteria: dict[str, Any]) -> int:
    alias = transactions.database_alias()
    rows = apps.get_model("llmcache", model).objects.using(alias)
    can_skip = connections[alias].features.has_select_for_update_skip_locked
    with transaction.atomic(using=alias):
        doomed = rows.filter(**criteria).order_by("pk")
        if can_skip:
            doomed = doomed.select_for_update(skip_locked=True)
        ids = list(doomed.values_list("pk", flat=True)[:BATCH_ROWS])
        # (asked again: where nothing was locked, a lease may have been renewed)
        rows.filter(pk__in=ids, **criteria).delete()
    return len(ids)
