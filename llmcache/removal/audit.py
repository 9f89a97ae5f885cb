"""The audit trail: who began which invalidation, and how it ended."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Exists, Subquery
from django.utils import timezone

from llmcache.background import transactions
from llmcache.background.database import persistently
from llmcache.outcomes import Tier
from llmcache.store.rows import columns, locks, waiting
from llmcache.store.rows import tier as durable


def start(criteria: dict[str, Any], by: str, *, total: int | None = None) -> int:
    """Write down that an invalidation begins; with a `total`, so that others can carry it on.

    From here on, no answer that fits `criteria` and was asked for before is stored any more; what
    was being stored is, since this waits for it. The primary key of the row.
    """
    pk = persistently(partial(_start, criteria, by, total))
    waiting.forget(criteria)
    return pk


def newest(pk: int) -> Subquery:
    """The primary key of the newest entry that there was when it began.

    The database reads it from the row where it needs it.
    """
    return Subquery(invalidations().filter(pk=pk).values("newest"))


def finish(
    pk: int, pending: Collection[Tier], *, entries: int | None = None, if_no_copies: bool = False
) -> bool:
    """Write down how an invalidation ended; whether nobody had before.

    `entries`: how many it removed; None where that was counted on the way. `if_no_copies`: only
    where no copies are still to go.
    """
    row = invalidations().filter(pk=pk, finished_at=None)
    if if_no_copies:
        row = row.filter(~Exists(transactions.rows("PendingEviction")))
    facts = {"finished_at": timezone.now(), "pending": ", ".join(sorted(pending)), "carrier": ""}
    counted = {} if entries is None else {"entries": entries}
    return bool(persistently(partial(row.update, **facts, **counted)))


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
