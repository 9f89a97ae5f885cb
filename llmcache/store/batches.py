"""Removing entries: which rows, and the rows in short transactions.

The rows to go are read in windows of primary keys, without a lock, and each row of a window once.
Then they are locked, looked at again and deleted, some hundreds in a transaction; what was stored
anew in between stays. Deleting by criteria instead would come by the remains of what the batches
before have deleted, again and again, until the database has tidied up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from django.db import connections, transaction
from django.db.models import CharField, Q
from django.db.models.functions import Cast

from llmcache.background import transactions
from llmcache.background.database import persistently
from llmcache.store import evictions
from llmcache.store.rows import parts
from llmcache.store.rows import tier as durable
from llmcache.store.rows.locks import locked
from llmcache.store.rows.tier import Selection

T = TypeVar("T")

# So many primary keys are read at once.
WINDOW_ROWS: Final = 5_000

# A batch is to hold its locks about so long.
BATCH_SECONDS: Final = 0.02
FIRST_ROWS: Final = 500
FEWEST_ROWS: Final = 200

# When a row was asked for, as text, to be compared only: to make a `datetime` of each takes longer
# than all the rest.
CREATED: Final = Cast("created_at", CharField())

# So often it is looked for what was stored while it was looked for.
MOST_ROUNDS: Final = 10


class Window(NamedTuple):
    """Rows that were seen, when each was asked for, and whether any entry was made of others."""

    seen: Mapping[int, str]
    are_parts: bool


class Batch(NamedTuple):
    """What one transaction has done.

    It removed `removed` of the rows that it `locked`, and held them for `seconds`, until the end of
    its commit. The hot copies under `keys` are to go; `recorded` is the note about them. Unless
    `are_parts`, no entry was made of others by then.
    """

    removed: int
    locked: int
    seconds: float
    keys: Sequence[str] = ()
    recorded: int | None = None
    are_parts: bool = True


@dataclass(slots=True)
class Pace:
    """How many rows the next batch takes, so that it holds its locks for `BATCH_SECONDS`."""

    most: int
    rows: int = FIRST_ROWS

    def __post_init__(self) -> None:
        self.rows = min(self.rows, self.most)

    def record(self, rows: int, seconds: float) -> None:
        """A batch locked so many rows, for so long."""
        if not rows:
            # What another run has removed, or holds, says nothing of the next batch.
            return
        wanted = int(rows * BATCH_SECONDS / max(seconds, 0.001))
        # By half or the double at most: one batch that had to wait says little.
        bounded = max(self.rows // 2, min(wanted, self.rows * 2))
        self.rows = min(self.most, max(FEWEST_ROWS, bounded))


def count(select: Selection) -> int:
    """How many rows `select` picks now."""
    return persistently(lambda: select(durable.entries()).count())


def windows(select: Selection, newest: Any, after: int = 0) -> Iterator[Window]:
    """The rows that `select` picks, in the order of their primary keys.

    From the one that comes `after`, up to `newest`.

    A row that was stored anew since has another moment. Its question was asked after the
    invalidation had begun, or it would not have been stored; so it may stay. No two clocks are
    compared here.
    """
    while (window := persistently(partial(_window, select, after, newest))).seen:
        yield window
        if len(window.seen) < WINDOW_ROWS:
            return
        after = max(window.seen)


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
    return _in_batches(
        list(seen), pace, lambda ids: _remove(durable.numbered(durable.entries(), ids), seen=seen)
    )


def remove_keys(keys: Sequence[str], pace: Pace) -> Iterator[Batch]:
    """Remove the entries under `keys`, in this order, whenever they were asked for."""
    return _in_batches(
        keys, pace, lambda some: _remove(durable.entries().filter(key__in=some), some)
    )


def remove_with_parts(window: Window, pace: Pace) -> Iterator[Batch]:
    """`remove`; what the rows were made of goes first, and what was made of them (see `parts`).

    So who is killed in the middle, and begins again, finds the rest.
    """
    seen = window.seen
    if window.are_parts:
        rows = durable.numbered(durable.entries(), list(seen))
        keys = persistently(lambda: list(rows.values_list("key", flat=True)))
        above = persistently(partial(parts.above, keys))
        yield from remove_keys([*persistently(partial(parts.below, keys)), *above], pace)
        yield from remove_made_of(above, pace)
        # What has taken the place of a row meanwhile may be made of what has gone since.
        seen = persistently(lambda: dict(rows.values_list("pk", CREATED)))
    for batch in remove(seen, pace):
        if batch.are_parts:
            yield from remove_made_of(batch.keys, pace)
        yield batch


def remove_made_of(keys: Sequence[str], pace: Pace) -> Iterator[Batch]:
    """Remove what was made of the entries under `keys`, which are removed.

    What is being made of them is stored by now, or does not find them any more. What is being made
    of that is stored once it has been looked for.
    """
    if not keys or not persistently(parts.exist):
        return
    for _ in range(MOST_ROUNDS):
        if not (found := persistently(partial(parts.above, keys))):
            break
        yield from remove_keys(found, pace)
        keys = [*keys, *found]


def remove_outlived(ids: Sequence[int], now: datetime, pace: Pace) -> Iterator[Batch]:
    """Remove the rows that have been of no use since before `now`, and their tags, in batches.

    Rows that another transaction holds are left alone, where the database can. Hot copies need no
    removing: they were given no longer than the entry had. Raises what the database raises, after
    some attempts.
    """
    return _in_batches(ids, pace, partial(_remove_outlived, now))


def _window(select: Selection, after: int, newest: Any) -> Window:
    rows: Any = select(durable.entries()).filter(pk__gt=after, pk__lte=newest).order_by("pk")
    found = list(rows.values_list("pk", CREATED, parts.any_row())[:WINDOW_ROWS])
    return Window({pk: at for pk, at, _ in found}, any(there for *_, there in found))


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
    rows: Sequence[T], pace: Pace, remove_batch: Callable[[Sequence[T]], Batch]
) -> Iterator[Batch]:
    done = 0
    while done < len(rows):
        some = rows[done : done + pace.rows]
        batch = persistently(partial(remove_batch, some))
        pace.record(batch.locked, batch.seconds)
        done += len(some)
        yield batch


def _remove(rows: Any, keys: Sequence[str] = (), *, seen: Mapping[int, str] | None = None) -> Batch:
    """Remove those of `rows`, which have `keys`, that were asked for when it was `seen`."""
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        rows = locked(rows, alias)
        started = time.monotonic()
        there = list(rows.order_by("pk").values_list("pk", "key", CREATED, parts.any_row()))
        # Also those of rows that stay: what took the row of an older answer may have no copy yet,
        # and until it has, the older one's is there.
        keys = keys or [key for _, key, *_ in there]
        recorded = evictions.record(keys)
        removed = durable.delete([pk for pk, _, at, _ in there if seen is None or at == seen[pk]])
        # (where there are other writers, one may be adding some)
        has_others = connections[alias].features.has_select_for_update
        are_parts = has_others or any(some for *_, some in there)
    return Batch(removed, len(there), time.monotonic() - started, keys, recorded, are_parts)


def _remove_outlived(now: datetime, ids: Sequence[int]) -> Batch:
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        rows = locked(durable.numbered(durable.entries().outlived(now), ids), alias, skip=True)
        started = time.monotonic()
        # Nothing but their numbers: while other threads compute, each part of what the database
        # sends waits for its turn, and the locks are held.
        found: Any = rows.order_by("pk").values_list("pk", flat=True)
        removed = durable.delete(list(found))
    return Batch(removed, removed, time.monotonic() - started)
