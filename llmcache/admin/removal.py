"""Removing what was selected, and writing down who did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Count, Max, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from llmcache.invalidation import BATCH_ROWS, Invalidated, invalidate
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.outcomes import Tier
from llmcache.store import durable

SAMPLE_ROWS: Final = 10

# So many entries get a line of their own in the log; one line tells of the rest, so that the log
# does not take as many rows as the cache had.
MOST_LOG_LINES: Final = 100


@dataclass(frozen=True, slots=True)
class Survey:
    """What is about to be removed: how much, and a few of the entries.

    `newest` is the highest primary key among them. What is stored after the survey has a higher
    one, and was not agreed to.
    """

    entries: int
    newest: int
    size: int
    sample: list[CacheEntry]

    @classmethod
    def of(cls, rows: CacheEntryQuerySet) -> Self:
        sums = rows.aggregate(entries=Count("pk"), newest=Max("pk"), size=Sum("size"))
        sample = list(rows.light()[:SAMPLE_ROWS])
        return cls(sums["entries"], sums["newest"] or 0, sums["size"] or 0, sample)

    @property
    def more(self) -> int:
        return max(0, self.entries - len(self.sample))


def invalidate_rows(rows: CacheEntryQuerySet, user_id: Any) -> Invalidated:
    """Invalidate the entries of `rows`, however many, and log who did (the key of a user)."""
    removed, pending, unlogged, last = 0, set[Tier](), 0, 0
    while batch := list(_batch(rows, last)):
        last = batch[-1].pk
        result = invalidate(keys=[entry.key for entry in batch])
        gone = _gone(batch, result)
        logged = gone[: max(0, MOST_LOG_LINES - removed)]
        _log_each(logged, user_id)
        unlogged += len(gone) - len(logged)
        removed += len(gone)
        pending.update(result.pending)
        if not result.entries and Tier.DURABLE in result.pending:
            break  # the database refuses; it would refuse the rest too
    if unlogged:
        _log_rest(unlogged, user_id)
    return Invalidated(removed, tuple(sorted(pending)))


def _batch(rows: CacheEntryQuerySet, after: int) -> CacheEntryQuerySet:
    rows = rows.filter(pk__gt=after).order_by("pk").defer(None)
    return rows.only("key", "namespace", "model")[:BATCH_ROWS]


def _gone(batch: list[CacheEntry], result: Invalidated) -> list[CacheEntry]:
    if result.entries == len(batch):
        return batch
    left = durable.entries().filter(pk__in=[entry.pk for entry in batch])
    kept = set(left.values_list("pk", flat=True))
    return [entry for entry in batch if entry.pk not in kept]


def _log_each(entries: list[CacheEntry], user_id: Any) -> None:
    LogEntry.objects.bulk_create(
        _line(
            user_id,
            str(entry.pk),
            f"{entry} ({entry.namespace})",
            _("Invalidated the answer under %(key)s.") % {"key": entry.key},
        )
        for entry in entries
    )


def _log_rest(entries: int, user_id: Any) -> None:
    more = ngettext("%(count)d more entry", "%(count)d more entries", entries) % {"count": entries}
    _line(user_id, None, more, _("Invalidated together with those listed one by one.")).save()


def _line(user_id: Any, object_id: str | None, subject: str, message: str) -> LogEntry:
    return LogEntry(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(CacheEntry),
        object_id=object_id,
        object_repr=subject[:200],
        action_flag=DELETION,
        change_message=message,
    )
