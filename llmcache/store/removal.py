"""Removing entries in batches: the rows in a short transaction, then their hot copies."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import OperationalError, connections, transaction

from llmcache.outcomes import Tier
from llmcache.store import durable, hot, placement
from llmcache.store.durable import Selection
from llmcache.store.safety import failing_safe

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

# A batch that met a deadlock or a busy SQLite is tried so often.
ATTEMPTS: Final = 5


class Batch(NamedTuple):
    """The keys that a batch picked, and how many of their rows it removed."""

    keys: list[str]
    removed: int


def remove_batch(
    select: Selection, limit: int, *, recheck: Selection | None = None, skip_locked: bool = False
) -> Batch:
    """Remove at most `limit` of the rows that `select` picks, and their tags.

    `recheck` is asked again in the delete. `skip_locked` leaves rows alone that another
    transaction holds, where the database can: a run beside this one takes them. Raises what the
    database raises, after some attempts.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return placement.run_removal(
                partial(_remove_batch, select, limit, recheck, skip_locked)
            )
        except OperationalError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def remove_hot(keys: list[str]) -> bool:
    """Remove the hot copies under `keys`; whether that succeeded."""
    with failing_safe(Tier.HOT, "remove from"):
        hot.delete(keys)
        return True
    return False


def _remove_batch(
    select: Selection, limit: int, recheck: Selection | None, skip_locked: bool
) -> Batch:
    alias = placement.database_alias()
    with transaction.atomic(using=alias):
        rows = _locked(select(durable.entries()), alias, skip_locked)
        keys = dict(rows.order_by("pk").values_list("pk", "key")[:limit])
        return Batch(list(keys.values()), durable.delete(list(keys), recheck))


def _locked(rows: CacheEntryQuerySet, alias: str, skip_locked: bool) -> CacheEntryQuerySet:
    features = connections[alias].features
    if not features.has_select_for_update:
        durable.take_write_lock()
        return rows
    can_skip = features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=skip_locked and can_skip)
