"""The page between choosing entries and invalidating them, and what is said afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import DELETION, LogEntry
from django.db.models import Count, Max, Sum
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin.base import log_entry
from llmcache.admin.phrases import class_name
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.outcomes import Tier
from llmcache.removal.invalidate import Invalidated, invalidate_selected
from llmcache.store.rows import tier as durable

# The field that says yes, by naming the newest of the entries that the page spoke of.
AGREED: Final = "agreed_up_to"

STILL_PENDING: Final = {
    Tier.HOT: gettext_lazy(
        "The hot tier (fast copies) could not be reached: its copies of these entries may be "
        "served until they expire there (LLMCACHE['HOT_TTL'])."
    ),
    Tier.LOCAL: gettext_lazy(
        "Other processes may serve copies of their own for a moment (LLMCACHE['LOCAL_TTL'])."
    ),
    Tier.DURABLE: gettext_lazy(
        "The database has not removed all of these entries for good: it refused, or the "
        "transaction around this request is still open. Look at the list again."
    ),
}


def agreed(request: HttpRequest) -> int | None:
    """The primary key up to which entries may go; None when nobody has agreed yet."""
    newest = request.POST.get(AGREED, "")
    return int(newest) if newest.isdecimal() and len(newest) < 20 else None


def question(request: HttpRequest, survey: Survey) -> dict[str, Any]:
    """The context of the page that asks."""
    across = request.POST.get("select_across") == "1"
    chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
    return {
        "title": _("Invalidate?"),
        "survey": survey,
        "sample": [(entry, class_name(entry.response_model)) for entry in survey.sample],
        "agreed_field": AGREED,
        "action": request.POST.get("action", ""),
        "select_across": across,
        # Across all pages the list is asked again; Django only wants to see some key.
        "chosen": chosen[:1] if across else chosen,
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }


def carry_out(request: HttpRequest, rows: CacheEntryQuerySet) -> None:
    """Invalidate `rows` and tell the user what came of it."""
    result = invalidate_rows(rows, request.user)
    said = ngettext(
        "%(count)d entry was invalidated. The next call with the same question asks the model.",
        "%(count)d entries were invalidated. The next call with the same question asks the model.",
        result.entries,
    )
    level = messages.SUCCESS if result.entries else messages.WARNING
    messages.add_message(request, level, said % {"count": result.entries})
    for tier in result.pending:
        messages.warning(request, STILL_PENDING[tier])


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
        log_entry(
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
    log_entry(user_id, DELETION, None, more, message).save()
