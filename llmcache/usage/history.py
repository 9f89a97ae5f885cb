"""How often an entry was served on each day, as `hits` writes it down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final

from django.apps import apps

from llmcache.background import transactions
from llmcache.background.retry import persistently

# So many days are told apart and kept.
DAYS: Final = 30
# So many rows are removed in one transaction.
BATCH_ROWS: Final = 1000


def today() -> date:
    """The day that is counted now, in UTC."""
    return datetime.now(UTC).date()


def of_days(entry: int) -> dict[date, int]:
    """How often the entry with that primary key was served on each of the last `DAYS`."""
    # (Each day by name, as the index has them. A range of days would come by all entries.)
    last = today()
    wanted = [last - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    served = dict(_rows().filter(entry=entry, day__in=wanted).values_list("day", "hits"))
    return {day: served.get(day, 0) for day in wanted}


def forget_old_days() -> int:
    """Remove what was counted on the days before these; how many rows that were."""
    total, before = 0, today() - timedelta(days=DAYS)
    while rows := persistently(partial(_forget_some, before)):
        total += rows
    return total


def _forget_some(before: date) -> int:
    old = _rows().filter(day__lt=before).order_by("day", "entry")
    removed, _ = _rows().filter(pk__in=[*old.values_list("pk", flat=True)[:BATCH_ROWS]]).delete()
    return int(removed)


def _rows() -> Any:
    return apps.get_model("llmcache", "HitDay").objects.using(transactions.database_alias())
