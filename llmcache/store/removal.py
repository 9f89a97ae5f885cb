"""Removing entries: which rows, the rows in short transactions, and who had them removed.

The rows to go are read in windows of primary keys, without a lock, and each row of a window once.
Then they are locked, looked at again and deleted, some hundreds in a transaction; what was stored
anew in between stays. Deleting by criteria instead would come by the remains of what the batches
before have deleted, again and again, until the database has tidied up.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from django.apps import apps
from django.db import OperationalError, connections, transaction
from django.db.models import CharField, Max, Q
from django.db.models.functions import Cast
from django.utils import timezone

from llmcache.outcomes import Tier
from llmcache.store import columns, durable, evictions, gate, placement
from llmcache.store.breaker import is_up
from llmcache.store.durable import Selection

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

T = TypeVar("T")

# So many primary keys are read at once.
WINDOW_ROWS: Final = 5_000
# What met a deadlock or a busy SQLite is tried so often, and given so long.
ATTEMPTS: Final = 8
PAUSE_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 30.0

# A batch is to hold its locks about so long.
BATCH_SECONDS: Final = 0.02
FIRST_ROWS: Final = 500
FEWEST_ROWS: Final = 200


class Batch(NamedTuple):
    """What one transaction has done.

    It removed `removed` of the rows that it `locked`, and held them for `seconds`, until the end of
    its commit. The hot copies under `keys` are to go; `noted` is the note about them.
    """

    removed: int
    locked: int
    seconds: float
    keys: Sequence[str] = ()
    noted: int | None = None


class Begun(NamedTuple):
    """The audit row of an invalidation, and the newest entry that there was when it began."""

    pk: int
    newest: int


@dataclass(slots=True)
class Pace:
    """How many rows the next batch takes, so that it holds its locks for `BATCH_SECONDS`."""

    most: int
    rows: int = FIRST_ROWS

    def __post_init__(self) -> None:
        self.rows = min(self.rows, self.most)

    def note(self, rows: int, seconds: float) -> None:
        """A batch locked so many rows, for so long."""
        if not rows:
            # What another run has removed, or holds, says nothing of the next batch.
            return
        wanted = int(rows * BATCH_SECONDS / max(seconds, 0.001))
        # By half or the double at most: one batch that had to wait says little.
        bounded = max(self.rows // 2, min(wanted, self.rows * 2))
        self.rows = min(self.most, max(FEWEST_ROWS, bounded))


def begin(criteria: dict[str, Any], by: str, *, total: int | None = None) -> Begun:
    """Write down that an invalidation begins; with a `total`, so that others can carry it on.

    From here on, no answer that fits `criteria` and was asked for before is stored any more; what
    was being stored is, since this waits for it.
    """
    return persistently(partial(_begin, criteria, by, total))


def finish(pk: int, entries: int, pending: str) -> None:
    """Write down how an invalidation ended."""
    facts = {"finished_at": timezone.now(), "entries": entries, "pending": pending}
    persistently(lambda: invalidations().filter(pk=pk).update(**facts))


def count(select: Selection) -> int:
    """How many rows `select` picks now."""
    return persistently(lambda: select(durable.entries()).count())


def windows(select: Selection, newest: int, after: int = 0) -> Iterator[dict[int, str]]:
    """The rows that `select` picks, in the order of their primary keys: when each was asked for.

    From the one that comes `after`, up to `newest`.

    A row that was stored anew since has another moment. Its question was asked after the
    invalidation had begun, or it would not have been stored; so it may stay. No two clocks are
    compared here.
    """
    while window := persistently(partial(_window, select, after, newest)):
        yield window
        after = max(window)


def outlived_windows(now: datetime) -> Iterator[list[int]]:
    """What has been of no use since before `now`, the oldest first."""
    after: tuple[datetime, int] | None = None
    while window := persistently(partial(_outlived_window, now, after)):
        yield [pk for _, pk in window]
        after = window[-1]


def remove(seen: Mapping[int, str], pace: Pace) -> Iterator[Batch]:
    """Remove the rows that were asked for when it was `seen`, and their tags, batch by batch.

    That their hot copies are to go is written down in the same transaction. Raises what the
    database raises, after some attempts.
    """
    yield from _in_batches(list(seen), pace, partial(_remove_seen, seen))


def remove_outlived(ids: Sequence[int], now: datetime, pace: Pace) -> Iterator[Batch]:
    """Remove the rows that have been of no use since before `now`, and their tags, in batches.

    Rows that another transaction holds are left alone, where the database can. Hot copies need no
    removing: they were given no longer than the entry had. Raises what the database raises, after
    some attempts.
    """
    yield from _in_batches(ids, pace, partial(_remove_outlived, now))


def persistently(work: Callable[[], T]) -> T:
    """Do `work` that writes, again where it met a deadlock or a busy SQLite.

    Raises what the database raises, after some attempts.
    """
    # A database that is given a rest does not answer, or refuses: that is found out sooner.
    patience = PATIENCE_SECONDS if is_up(Tier.DURABLE) else placement.WRITE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return placement.run_removal(work, patience=patience)
        except OperationalError:
            if attempt == ATTEMPTS:
                raise
            # (two who met each other are not to meet again)
            time.sleep(random.uniform(0, attempt * PAUSE_SECONDS))  # noqa: S311 - no secret
    raise AssertionError("unreachable")


def _begin(criteria: dict[str, Any], by: str, total: int | None) -> Begun:
    alias = placement.database_alias()
    with transaction.atomic(using=alias):
        gate.alone(alias)
        row = invalidations().create(
            started_at=timezone.now(), criteria=criteria, by=columns.label(by)
        )
        newest = durable.entries().aggregate(newest=Max("pk"))["newest"] or 0
        if total is not None:
            invalidations().filter(pk=row.pk).update(newest=newest, total=total)
        return Begun(row.pk, newest)


def _window(select: Selection, after: int, newest: int) -> dict[int, str]:
    rows = select(durable.entries()).filter(pk__gt=after, pk__lte=newest).order_by("pk")
    return dict(rows.values_list("pk", Cast("created_at", CharField()))[:WINDOW_ROWS])


def _outlived_window(
    now: datetime, after: tuple[datetime, int] | None
) -> list[tuple[datetime, int]]:
    rows = durable.entries().outlived(now)
    if after is not None:
        moment, pk = after
        rows = rows.filter(Q(stale_until__gt=moment) | Q(pk__gt=pk), stale_until__gte=moment)
    picked: Any = rows.order_by("stale_until", "pk").values_list("stale_until", "pk")
    return list(picked[:WINDOW_ROWS])


def _in_batches(
    ids: Sequence[int], pace: Pace, remove_batch: Callable[[Sequence[int]], Batch]
) -> Iterator[Batch]:
    done = 0
    while done < len(ids):
        some = ids[done : done + pace.rows]
        batch = persistently(partial(remove_batch, some))
        pace.note(batch.locked, batch.seconds)
        done += len(some)
        yield batch


def _remove_seen(seen: Mapping[int, str], ids: Sequence[int]) -> Batch:
    alias = placement.database_alias()
    with transaction.atomic(using=alias):
        rows = locked(durable.numbered(durable.entries(), ids), alias)
        started = time.monotonic()
        # The moment as text, to be compared only: to make a `datetime` of each takes longer than
        # all the rest.
        found: Any = rows.order_by("pk").values_list("pk", "key", Cast("created_at", CharField()))
        there = list(found)
        # Also those of rows that stay: what took the row of an older answer may have no copy yet,
        # and until it has, the older one's is there.
        keys = [key for _, key, _ in there]
        noted = evictions.note(keys)
        removed = durable.delete([pk for pk, _, text in there if text == seen[pk]])
    return Batch(removed, len(there), time.monotonic() - started, keys, noted)


def _remove_outlived(now: datetime, ids: Sequence[int]) -> Batch:
    alias = placement.database_alias()
    with transaction.atomic(using=alias):
        rows = locked(durable.numbered(durable.entries().outlived(now), ids), alias, skip=True)
        started = time.monotonic()
        # Nothing but their numbers: while other threads compute, each part of what the database
        # sends waits for its turn, and the locks are held.
        found: Any = rows.order_by("pk").values_list("pk", flat=True)
        removed = durable.delete(list(found))
    return Batch(removed, removed, time.monotonic() - started)


def locked(rows: CacheEntryQuerySet, alias: str, skip: bool = False) -> CacheEntryQuerySet:
    """`rows`, which are locked when they are read, until the transaction ends.

    `skip` those that are locked, where the database can.
    """
    connection = connections[alias]
    if not connection.features.has_select_for_update:
        gate.take_write_lock(alias)
        return rows
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true)", [f"{placement.LOCK_SECONDS}s"]
            )
    can_skip = connection.features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=skip and can_skip)


def invalidations() -> Any:
    alias = placement.database_alias()
    return apps.get_model("llmcache", "Invalidation").objects.using(alias)
