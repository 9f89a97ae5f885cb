"""What is stored: the entries that are worth most, the largest ones, and how much there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from django.db import connections
from django.db.models import Count, F, Sum, Window
from django.utils import timezone

from llmcache.models import CacheEntry
from llmcache.store.rows import tier as durable
from llmcache.usage import rollup

TOP: Final = 10
# From here on it is "so many and more".
MOST: Final = 10_000
# A store of no more entries is counted when somebody looks, a larger one by a task.
COUNTED_AT_ONCE: Final = MOST


class Space(NamedTuple):
    """How much is stored under one name, in bytes of the answers at rest."""

    name: str
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """`counted_at`: when the sizes were counted; None: the store is large, and none has done it."""

    most_valuable: list[CacheEntry]
    largest: list[CacheEntry]
    namespaces: list[Space]
    entries: int
    size: int
    counted_at: datetime | None

    @classmethod
    def read(cls, *, top: int = TOP, is_small: bool | None = None) -> Self:
        """In three queries, or four where `is_small` (see `is_small_store`) is not given."""
        small = is_small_store() if is_small is None else is_small
        spaces, entries, size, counted_at = _counted(top) if small else _counted_before(top)
        rows: Any = durable.entries().light()
        return cls(
            list(rows.filter(saved__gt=0).order_by("-saved")[:top]),
            list(rows.order_by("-size")[:top]),
            spaces,
            entries,
            size,
            counted_at,
        )


def is_small_store() -> bool:
    """Whether it is quick to count what is stored."""
    first = durable.entries().order_by()[: COUNTED_AT_ONCE + 1]
    return first.count() <= COUNTED_AT_ONCE


def _counted(top: int) -> tuple[list[Space], int, int, datetime | None]:
    counted = durable.entries().order_by().values("namespace")
    rows = counted.annotate(entries=Count("pk"), space=Sum("size")).order_by("-space", "namespace")
    spaces = [Space(row["namespace"], row["entries"], int(row["space"])) for row in rows]
    entries, size = sum(each.entries for each in spaces), sum(each.size for each in spaces)
    return spaces[:top], entries, size, timezone.now()


def _counted_before(top: int) -> tuple[list[Space], int, int, datetime | None]:
    rows = rollup.sizes().annotate(
        all_entries=Window(Sum(F("entries"))), all_size=Window(Sum(F("size")))
    )
    found = list(rows.order_by("-size", "namespace")[:top])
    if not found:
        return [], 0, 0, None
    spaces = [Space(row.namespace, row.entries, row.size) for row in found]
    first = found[0]
    return spaces, int(first.all_entries), int(first.all_size), first.counted_at


def count_at_most(queries: Mapping[str, Any], most: int = MOST) -> dict[str, int]:
    """How many rows each of these query sets of one database has; `most` + 1 where more."""
    parts, parameters = [], []
    for rows in queries.values():
        compiler = rows.values("pk")[: most + 1].query.get_compiler(rows.db)
        sql, some = compiler.as_sql()
        parts.append(f"(SELECT COUNT(*) FROM ({sql}) counted)")  # noqa: S608 - of the ORM's making
        parameters += some
    alias = next(iter(queries.values())).db
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)}", parameters)
        return dict(zip(queries, map(int, cursor.fetchone()), strict=True))
