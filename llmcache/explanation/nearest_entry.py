"""The stored entry that is nearest to a request: the one of which the fewest parts differ.

The digests on the rows are compared, of a bounded number of rows; what was asked and answered is
not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from llmcache.explanation.comparison import Subject, differing_parts
from llmcache.store.rows import columns
from llmcache.store.rows import tier as durable

if TYPE_CHECKING:
    from llmcache.models import CacheEntry, CacheEntryQuerySet

# Each query takes the newest so many rows.
MOST_CANDIDATES: Final = 200

COLUMNS: Final = (
    "key",
    "namespace",
    "provider",
    "endpoint",
    "model",
    "mode",
    "response_model",
    "digests",
    "created_at",
)


def nearest(subject: Subject, *, any_namespace: bool = False) -> CacheEntry | None:
    """The stored entry that differs from `subject` in the fewest parts; of several, the newest.

    None when there is none to compare with. `any_namespace` looks into the other namespaces too;
    of two that differ in as many parts, an entry of the same namespace is nearer.
    """
    if not subject.digests:
        return None
    best, best_distance = None, None
    for rows in _choices(subject, any_namespace):
        newest = rows.exclude(key=subject.key).only(*COLUMNS).order_by("-created_at")
        for row in newest[:MOST_CANDIDATES]:
            distance = _distance(subject, row)
            if row.part_digests and (best_distance is None or distance < best_distance):
                best, best_distance = row, distance
        if best_distance is not None and best_distance[0] <= 1:
            break  # nothing can be nearer
    return best


def _choices(subject: Subject, any_namespace: bool) -> Iterator[CacheEntryQuerySet]:
    """Where to look, the most promising first; each in the order of an index."""
    rows = durable.entries()
    own = rows.in_namespace(subject.namespace)
    model = {"model": columns.label(subject.model)}
    response_model = {"response_model": columns.label(subject.response_model)}
    yield own.filter(**model)
    yield own.filter(**response_model)
    yield own
    if any_namespace:
        yield rows.filter(**response_model)
        yield rows.filter(**model)


def _distance(subject: Subject, row: CacheEntry) -> tuple[int, bool, float]:
    return (
        len(differing_parts(subject.digests, row.part_digests)),
        row.namespace != subject.namespace,
        -row.created_at.timestamp(),
    )
