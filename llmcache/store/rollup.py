"""What the ledger's hours are added up into when they are old, and how large namespaces are."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import connections, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from llmcache.store import durable, gate, ledger, placement
from llmcache.store.ledger import SUMS, Group
from llmcache.store.removal import persistently

# So many rows are added up in one transaction.
BATCH_ROWS: Final = 1000
# So many rows are written by one statement.
ROWS_PER_STATEMENT: Final = 500


def add_up_days(before: date) -> int:
    """Add the hours of the days before that into one row a day; how many rows that were.

    Each batch is added to its day and removed in one transaction, so the sums are the same at any
    moment, and it may be run at any time, also twice at once. What is written to an hour later is
    added by the next run.
    """
    total = 0
    while rows := persistently(partial(_add_up_some, before)):
        total += rows
    return total


def count_namespaces() -> int:
    """Count what is stored in each namespace, and write that down; how many there are."""
    return placement.run_removal(_count_namespaces)


def sizes() -> Any:
    """What there is in each namespace, as counted last."""
    return _model("NamespaceSize").objects.using(placement.database_alias())


def hours(before: date) -> Any:
    """The rows of hours that are still to be added up."""
    return usage().filter(hours=1, day__lt=before)


def usage() -> Any:
    """The rows of the ledger."""
    return _model("UsageHour").objects.using(placement.database_alias())


def _add_up_some(before: date) -> int:
    alias = placement.database_alias()
    features = connections[alias].features
    with transaction.atomic(using=alias):
        rows = hours(before).order_by("day", "pk")
        if not features.has_select_for_update:
            gate.take_write_lock(alias)
        else:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        groups: defaultdict[Group, list[int]] = defaultdict(lambda: [0] * len(SUMS))
        ids = []
        for pk, day, *rest in rows.values_list("pk", "day", *Group._fields[1:], *SUMS)[:BATCH_ROWS]:
            names, sums = rest[: -len(SUMS)], rest[-len(SUMS) :]
            total = groups[Group(_seconds(day), *names)]
            total[:] = [old + new for old, new in zip(total, sums, strict=True)]
            ids.append(pk)
        ledger.add(groups, hours=24)
        usage().filter(pk__in=ids).delete()
    return len(ids)


def _seconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def _count_namespaces() -> int:
    now = timezone.now()
    sized = _model("NamespaceSize")
    counted = durable.entries().order_by().values("namespace")
    rows = [
        sized(counted_at=now, **facts)
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
    return len(rows)


def _model(name: str) -> Any:
    return apps.get_model("llmcache", name)
