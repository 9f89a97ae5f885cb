"""How often each entry was served, in all and by day: counted here, written in batches.

A hit writes nothing to the database, and takes no lock. What was served is written some seconds
after the first hit that is not written yet, on another thread; also when the process ends. What a
process that is killed had not written is lost. When an entry was hit last is known as exactly as
that.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, Final

from django.db import connections
from django.utils import timezone

from llmcache.background import transactions
from llmcache.background.database import persistently
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import failing_safe
from llmcache.store.rows import tier as durable
from llmcache.store.rows.upsert import statement
from llmcache.usage.buffer import Flusher

# More are not held until they are written: the oldest go first. (The ledger has them. One process
# serves fewer in the seconds until then.)
MOST_HELD: Final = 150_000
# Where a statement names each entry, it has so many parameters at most, and for each so many.
PARAMETERS: Final = 1_500
PER_ENTRY: Final = 4
# So many days are told apart and kept.
DAYS: Final = 30
# So many of their rows are removed in one transaction.
BATCH_ROWS: Final = 1000

Statement = tuple[str, list[Any]]


def count(key: str) -> None:
    """Note that the entry under `key` was served once."""
    _served.append(key)
    if _flusher.is_asleep:
        _flusher.wake()


def flush() -> None:
    """Write what was served to the rows now."""
    _flusher.flush()


def today() -> date:
    """The day that is counted now, in UTC."""
    return datetime.now(UTC).date()


def of_days(entry: int) -> dict[date, int]:
    """How often the entry with that primary key was served on each of the last `DAYS`."""
    # (Each day by name, as the index has them. A range of days would come by all entries.)
    last = today()
    wanted = [last - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    served = dict(_days().filter(entry=entry, day__in=wanted).values_list("day", "hits"))
    return {day: served.get(day, 0) for day in wanted}


def forget_old_days() -> None:
    """Remove what was counted on the days before these."""
    while persistently(partial(_forget_some, today() - timedelta(days=DAYS))):
        pass


def _forget_some(before: date) -> int:
    old = _days().filter(day__lt=before).order_by("day", "entry")
    removed, _ = _days().filter(pk__in=[*old.values_list("pk", flat=True)[:BATCH_ROWS]]).delete()
    return int(removed)


def _days() -> Any:
    return transactions.rows("HitDay")


def _write(is_same_database: bool) -> bool:
    counts = _take()
    if counts and is_same_database:
        with failing_safe(Tier.DURABLE, "count hits in"):
            _add(counts)
            return True
        return False
    return True


def _take() -> Counter[str]:
    """For each key, how many hits."""
    taken = Counter[str]()
    with suppress(IndexError):  # another thread had the last one
        for _ in range(len(_served)):
            taken[_served.popleft()] += 1
    return taken


def _add(counts: Mapping[str, int]) -> None:
    # In the order of the keys: two processes that lock the same rows do not wait for each other.
    keys = sorted(counts)
    hits = [counts[key] for key in keys]
    alias = transactions.database_alias()
    make = _at_once if connections[alias].vendor == "postgresql" else _by_cases
    with connections[alias].cursor() as cursor:
        for sql, parameters in make(alias, keys, hits):
            cursor.execute(sql, parameters)


# By hand: the ORM takes a tenth of a second of CPU for some hundred conditions.


def _at_once(alias: str, keys: list[str], hits: list[int]) -> Iterator[Statement]:
    entries = connections[alias].ops.quote_name(durable.entries().model._meta.db_table)
    yield (
        "WITH served AS (SELECT entry.id, counted.hits "  # noqa: S608 - no input
        "FROM unnest(%s::text[], %s::bigint[]) AS counted(key, hits) "
        f"JOIN {entries} AS entry ON entry.key = counted.key "
        "ORDER BY entry.key FOR NO KEY UPDATE OF entry), "
        f"counted AS (UPDATE {entries} AS entry "
        "SET hits = entry.hits + served.hits, last_hit_at = %s "
        "FROM served WHERE entry.id = served.id RETURNING entry.id, served.hits) "
        + _add_to_days(alias, "SELECT %s, id, hits FROM counted ORDER BY id"),
        [keys, hits, timezone.now(), today()],
    )


def _by_cases(alias: str, keys: list[str], hits: list[int]) -> Iterator[Statement]:
    connection = connections[alias]
    quote = connection.ops.quote_name
    entries, key = quote(durable.entries().model._meta.db_table), quote("key")
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    day = connection.ops.adapt_datefield_value(today())
    most = (connection.features.max_query_params or PARAMETERS) // PER_ENTRY
    for start in range(0, len(keys), most):
        some, theirs = keys[start : start + most], hits[start : start + most]
        served = f"CASE {key} {'WHEN %s THEN %s ' * len(some)}END"
        pairs = [*chain(*zip(some, theirs, strict=True))]
        there = f"{key} IN ({', '.join(['%s'] * len(some))})"
        yield (
            f"UPDATE {entries} SET hits = hits + {served}, last_hit_at = %s WHERE {there}",  # noqa: S608 - no input
            [*pairs, now, *some],
        )
        select = f"SELECT %s, id, {served} FROM {entries} WHERE {there} ORDER BY id"  # noqa: S608 - no input
        yield _add_to_days(alias, select), [day, *pairs, *some]


def _add_to_days(alias: str, select: str) -> str:
    days, unique = _days().model, ("day", "entry")
    return statement(
        connections[alias], days, (*unique, "hits"), select, unique=unique, added=["hits"]
    )


_served: Final[deque[str]] = deque(maxlen=MOST_HELD)
_flusher: Final = Flusher("count hits in", _write, _served.clear)
