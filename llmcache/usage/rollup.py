"""What the ledger's hours are added up into when they are old, and how large namespaces are."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, Final

from django.db import connections, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.background.database import persistently
from llmcache.store.rows import locks
from llmcache.store.rows import tier as durable
from llmcache.usage import hits, ledger, task_runs
from llmcache.usage.ledger import SUMS, Group

# So many rows are added up in one transaction.
BATCH_ROWS: Final = 1000
# So many rows are written by one statement.
ROWS_PER_STATEMENT: Final = 500
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
    with task_runs.recorded(task_runs.ROLL_UP_USAGE) as run:
        while rows := persistently(partial(_add_up_some, first_day_of_hours())):
            run.done += rows
        database.run_removal(_count_namespaces)
        hits.forget_old_days()
    return run.done


def first_day_of_hours() -> date:
    """The day from which on hours are told apart."""
    return (datetime.now(UTC) - HOURS_KEPT).date()


def usage() -> Any:
    """The rows of the ledger."""
    return transactions.rows("UsageHour")


def hours(before: date) -> Any:
    """The rows of hours that are still to be added up."""
    return usage().filter(hours=1, day__lt=before)


def sizes() -> Any:
    """What there is in each namespace, as counted last."""
    return transactions.rows("NamespaceSize")


def _add_up_some(before: date) -> int:
    """Add some hours of the days before that to rows of a day; how many rows they were.

    They are added and removed in one transaction, so the sums are the same at any moment. What is
    written to an hour later is added by the next run.
    """
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        rows = locks.locked(hours(before).order_by("day", "pk"), alias, skip=True)
        groups: defaultdict[Group, list[int]] = defaultdict(lambda: [0] * len(SUMS))
        ids = []
        for pk, day, *rest in rows.values_list("pk", "day", *Group._fields[1:], *SUMS)[:BATCH_ROWS]:
            names, sums = rest[: -len(SUMS)], rest[-len(SUMS) :]
            begun = int(datetime.combine(day, time(), UTC).timestamp())
            total = groups[Group(begun, *names)]
            total[:] = [old + new for old, new in zip(total, sums, strict=True)]
            ids.append(pk)
        ledger.add(groups, hours=24)
        usage().filter(pk__in=ids).delete()
    return len(ids)


def _count_namespaces() -> None:
    """Count what is stored in each namespace, and write that down."""
    now = timezone.now()
    counted = durable.entries().order_by().values("namespace")
    rows = [
        sizes().model(counted_at=now, **facts)
        for facts in counted.annotate(entries=Count("pk"), size=Sum("size"))
    ]
    names_target = connections[sizes().db].features.supports_update_conflicts_with_target
    with transaction.atomic(using=sizes().db):
        sizes().bulk_create(
            rows,
            batch_size=ROWS_PER_STATEMENT,
            update_conflicts=True,
            unique_fields=["namespace"] if names_target else None,
            update_fields=["entries", "size", "counted_at"],
        )
        sizes().filter(counted_at__lt=now).delete()
