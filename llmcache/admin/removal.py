"""Removing what was selected, and writing down who did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from django.contrib.admin.models import DELETION, LogEntry
from django.db.models import Count, Max, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from llmcache.admin import log
from llmcache.invalidation import Invalidated, invalidate_selected
from llmcache.models import CacheEntry, CacheEntryQuerySet
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


def invalidate_rows(rows: CacheEntryQuerySet, user: Any) -> Invalidated:
    """Invalidate the entries of `rows`, however many, and log that `user` did."""
    # What may be logged one by one, noted before it is gone.
    first = list(_first(rows))
    result = invalidate_selected(rows.defer(None), by=user.get_username())
    logged = _gone(first, result)
    _log_each(logged, user.pk)
    if result.entries > len(logged):
        _log_rest(result.entries - len(logged), user.pk)
    return result


def _first(rows: CacheEntryQuerySet) -> CacheEntryQuerySet:
    return rows.order_by("pk").defer(None).only("key", "namespace", "model")[:MOST_LOG_LINES]


def _gone(entries: list[CacheEntry], result: Invalidated) -> list[CacheEntry]:
    if not result.entries:
        return []
    left = durable.entries().filter(pk__in=[entry.pk for entry in entries])
    kept = set(left.values_list("pk", flat=True))
    return [entry for entry in entries if entry.pk not in kept][: result.entries]


def _log_each(entries: list[CacheEntry], user_id: Any) -> None:
    LogEntry.objects.bulk_create(
        log.line(
            user_id,
            DELETION,
            str(entry.pk),
            f"{entry} ({entry.namespace})",
            _("Invalidated the answer under %(key)s.") % {"key": entry.key},
        )
        for entry in entries
    )


def _log_rest(entries: int, user_id: Any) -> None:
    more = ngettext("%(count)d more entry", "%(count)d more entries", entries) % {"count": entries}
    message = _("Invalidated together with those listed one by one.")
    log.line(user_id, DELETION, None, more, message).save()
