"""The audit trail: who began which invalidation, and how it ended."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from django.apps import apps
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from llmcache.background import transactions
from llmcache.background.retry import persistently
from llmcache.store.rows import columns, locks, waiting
from llmcache.store.rows import tier as durable


class Begun(NamedTuple):
    """The audit row of an invalidation, and the newest entry that there was when it began."""

    pk: int
    newest: int


def begin(criteria: dict[str, Any], by: str, *, total: int | None = None) -> Begun:
    """Write down that an invalidation begins; with a `total`, so that others can carry it on.

    From here on, no answer that fits `criteria` and was asked for before is stored any more; what
    was being stored is, since this waits for it.
    """
    begun = persistently(partial(_begin, criteria, by, total))
    waiting.forget(criteria)
    return begun


def finish(pk: int, entries: int, pending: str) -> None:
    """Write down how an invalidation ended."""
    facts = {"finished_at": timezone.now(), "entries": entries, "pending": pending}
    persistently(lambda: invalidations().filter(pk=pk).update(**facts))


def _begin(criteria: dict[str, Any], by: str, total: int | None) -> Begun:
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        locks.alone(alias)
        row = invalidations().create(
            started_at=timezone.now(), criteria=criteria, by=columns.label(by)
        )
        newest = durable.entries().aggregate(newest=Max("pk"))["newest"] or 0
        if total is not None:
            invalidations().filter(pk=row.pk).update(newest=newest, total=total)
        return Begun(row.pk, newest)


def invalidations() -> Any:
    alias = transactions.database_alias()
    return apps.get_model("llmcache", "Invalidation").objects.using(alias)
