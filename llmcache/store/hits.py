"""How often each entry was served: counted in the process, written to the rows in batches.

A hit writes nothing to the database, and takes no lock. What was served is written once there are
`FLUSH_COUNT` hits, and some seconds after the first one that is not written yet, on another thread;
also when the process ends. What a process that is killed had not written is lost: at most that
much. When an entry was hit last is known as exactly as that.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from django.apps import apps
from django.db import connections
from django.utils import timezone

from llmcache.outcomes import Tier
from llmcache.store import placement
from llmcache.store.flushing import Flusher
from llmcache.store.safety import failing_safe

FLUSH_COUNT: Final = 5_000
# More are not held while the database is not to be had: the oldest go first. (The ledger has them.)
MOST_HELD: Final = 50_000
# Where a statement names each entry, it has so many parameters at most, and for each so many.
PARAMETERS: Final = 1_500
PER_ENTRY: Final = 4

Statement = tuple[str, list[Any]]


def count(key: str) -> None:
    """Note that the entry under `key` was served once."""
    _served.append(key)
    if _flusher.is_asleep:
        _flusher.wake()
    elif not len(_served) % FLUSH_COUNT:
        _flusher.hurry()


def flush() -> None:
    """Write what was served to the rows now."""
    _flusher.flush()


def _write(is_same_database: bool) -> None:
    counts = _take()
    if counts and is_same_database:
        with failing_safe(Tier.DURABLE, "count hits in"):
            _add(counts)


def _take() -> Counter[str]:
    """For each key, how many hits."""
    return Counter(_taken())


def _taken() -> Iterator[str]:
    for _ in range(len(_served)):
        try:
            yield _served.popleft()
        except IndexError:  # another thread had it
            return


def _add(counts: Mapping[str, int]) -> None:
    # In the order of the keys: two processes that lock the same rows do not wait for each other.
    keys = sorted(counts)
    hits = [counts[key] for key in keys]
    alias = placement.database_alias()
    make = _at_once if connections[alias].vendor == "postgresql" else _by_cases
    with connections[alias].cursor() as cursor:
        for sql, parameters in make(alias, keys, hits):
            cursor.execute(sql, parameters)


# By hand: the ORM takes a tenth of a second of CPU for some hundred conditions.


def _at_once(alias: str, keys: list[str], hits: list[int]) -> Iterator[Statement]:
    table, key, hit_count, last = _names(alias)
    yield (
        f"UPDATE {table} SET {hit_count} = {table}.{hit_count} + served.hits, {last} = %s "  # noqa: S608 - no input
        "FROM (SELECT entry.id, counted.hits "
        "FROM unnest(%s::text[], %s::bigint[]) AS counted(key, hits) "
        f"JOIN {table} AS entry ON entry.{key} = counted.key "
        f"ORDER BY entry.{key} FOR NO KEY UPDATE OF entry) AS served "
        f"WHERE {table}.id = served.id",
        [timezone.now(), keys, hits],
    )


def _by_cases(alias: str, keys: list[str], hits: list[int]) -> Iterator[Statement]:
    table, key, hit_count, last = _names(alias)
    connection = connections[alias]
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    most = (connection.features.max_query_params or PARAMETERS) // PER_ENTRY
    for start in range(0, len(keys), most):
        some, their_hits = keys[start : start + most], hits[start : start + most]
        cases, names = "WHEN %s THEN %s " * len(some), ", ".join(["%s"] * len(some))
        yield (
            f"UPDATE {table} SET {hit_count} = {hit_count} + CASE {key} {cases} END, "  # noqa: S608 - no input
            f"{last} = %s WHERE {key} IN ({names})",
            [*chain(*zip(some, their_hits, strict=True)), now, *some],
        )


def _names(alias: str) -> list[str]:
    """The table, and the columns key, hits and last hit, in quotes."""
    table = apps.get_model("llmcache", "CacheEntry")._meta.db_table
    return [connections[alias].ops.quote_name(n) for n in (table, "key", "hits", "last_hit_at")]


_served: Final[deque[str]] = deque(maxlen=MOST_HELD)
_flusher: Final = Flusher("count hits in", _write, _served.clear)
