"""The audit trail: who began which invalidation, and how it ended."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Exists, Subquery
from django.utils import timezone

from llmcache.background import transactions
from llmcache.background.retry import persistently
from llmcache.outcomes import Tier
from llmcache.store.rows import columns, locks, waiting
from llmcache.store.rows import tier as durable


class Started(NamedTuple):
    """The audit row of an invalidation, and the newest entry that there was when it began.

    That is a primary key, which the database reads from the row where it needs it.
    """

    pk: int
    newest: Any


def start(criteria: dict[str, Any], by: str, *, total: int | None = None) -> Started:
    """Write down that an invalidation begins; with a `total`, so that others can carry it on.

    From here on, no answer that fits `criteria` and was asked for before is stored any more; what
    was being stored is, since this waits for it.
    """
    pk = persistently(partial(_start, criteria, by, total))
    waiting.forget(criteria)
    return Started(pk, Subquery(invalidations().filter(pk=pk).values("newest")))


def finish(pk: int, pending: Collection[Tier], *, entries: int | None = None) -> bool:
    """Write down how an invalidation ended; whether nobody had before.

    `entries`: how many it removed; None where that was counted on the way.
    """
    return _finish(invalidations().filter(pk=pk), pending, entries)


def finish_without_copies(pk: int, *, entries: int | None = None) -> bool:
    """`finish` with nothing pending; False, and nothing written, where copies are still to go."""
    row = invalidations().filter(~Exists(transactions.rows("PendingEviction")), pk=pk)
    return _finish(row, (), entries)


def _finish(row: Any, pending: Collection[Tier], entries: int | None) -> bool:
    facts: dict[str, Any] = {
        "finished_at": timezone.now(),
        "pending": ", ".join(sorted(pending)),
        "carrier": "",
    }
    if entries is not None:
        facts["entries"] = entries
    return bool(persistently(partial(row.filter(finished_at=None).update, **facts)))


def _start(criteria: dict[str, Any], by: str, total: int | None) -> int:
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        locks.alone(alias)
        row = invalidations().create(
            started_at=timezone.now(),
            criteria=criteria,
            by=columns.label(by),
            total=total,
            newest=Subquery(durable.entries().order_by("-pk").values("pk")[:1]),
        )
        return int(row.pk)


def invalidations() -> Any:
    return transactions.rows("Invalidation")
