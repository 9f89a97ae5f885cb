"""Invalidating what was selected: the page that asks, and what is said and logged afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import DELETION, LogEntry
from django.db.models import Count, Max, Q, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin import phrases
from llmcache.admin.base import EntriesAdmin, log_line
from llmcache.admin.entries.content import Question, read_question
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.outcomes import Tier
from llmcache.removal.invalidate import invalidate_selected
from llmcache.reports import formatting
from llmcache.store.rows import tier as durable

SAMPLE_ROWS: Final = 10
SNIPPET: Final = 120

# The field that says yes, by naming the newest of the entries that the page spoke of: what is
# stored afterwards was not agreed to.
AGREED: Final = "agreed_up_to"

# So many entries get a line of their own in the log; one line tells of the rest, so that the log
# does not take as many rows as the cache had.
MOST_LOG_LINES: Final = 100

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


@dataclass(frozen=True, slots=True)
class Preview:
    """What is about to be removed: how much, what it has saved, and a few of the entries.

    `newest` is the highest primary key among the entries: what is stored later has a higher. Of
    each sample there are its class and the first words of its last message.
    """

    entries: int
    newest: int
    pinned: int
    unpriced: int
    size: int
    saved: str
    samples: list[tuple[CacheEntry, str, str]]

    @classmethod
    def of(cls, rows: CacheEntryQuerySet, *, may_read: bool = False) -> Self:
        """`may_read`: tell also what is asked."""
        sums = rows.aggregate(
            entries=Count("pk"),
            newest=Max("pk"),
            pinned=Count("pk", filter=Q(pinned=True)),
            unpriced=Count("pk", filter=Q(cost=None, hits__gt=0)),
            size=Sum("size"),
            saved=Sum("saved"),
        )
        return cls(
            entries=sums["entries"],
            newest=sums["newest"] or 0,
            pinned=sums["pinned"],
            unpriced=sums["unpriced"],
            size=sums["size"] or 0,
            saved=formatting.money(int(sums["saved"] or 0)),
            samples=_samples(rows, may_read),
        )

    @property
    def more(self) -> int:
        return max(0, self.entries - len(self.samples))

    @property
    def count_in_words(self) -> str:
        said = ngettext("%(count)s entry", "%(count)s entries", self.entries)
        return said % {"count": formatting.count(self.entries)}


def invalidate_one(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    """The way from the page of an entry."""
    rows = durable.entries().filter(pk=entry.pk)
    asked = invalidate(admin, request, rows, back_url=admin.url(request, "change", entry.pk))
    return asked or HttpResponseRedirect(admin.url(request, "changelist"))


def invalidate(
    admin: EntriesAdmin, request: HttpRequest, rows: CacheEntryQuerySet, back_url: str
) -> HttpResponse | None:
    """Ask; once that was agreed to, do it, and return None."""
    newest = request.POST.get(AGREED, "")
    if newest.isdecimal() and len(newest) < 20:
        _carry_out(request, rows.filter(pk__lte=int(newest)))
        return None
    across = request.POST.get("select_across") == "1"
    chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
    context = {
        "title": _("Invalidate?"),
        "preview": Preview.of(rows),
        "back_url": back_url,
        "agreed_field": AGREED,
        "action": request.POST.get("action", ""),
        "select_across": across,
        # Across all pages the list is asked again; Django only wants to see some key.
        "chosen": chosen[:1] if across else chosen,
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return admin.page(request, "invalidate_confirmation", context)


def _carry_out(request: HttpRequest, rows: CacheEntryQuerySet) -> None:
    """Invalidate `rows`, log it, and tell the user what came of it."""
    # What may be logged one by one, noted before it is gone.
    first = list(rows.order_by("pk").defer(None).only("key", "namespace")[:MOST_LOG_LINES])
    result = invalidate_selected(rows.defer(None), by=request.user.get_username())
    _log(request.user, first, result.entries)
    said = ngettext(
        "%(count)d entry was invalidated. The next call with the same question asks the model.",
        "%(count)d entries were invalidated. The next call with the same question asks the model.",
        result.entries,
    )
    level = messages.SUCCESS if result.entries else messages.WARNING
    messages.add_message(request, level, said % {"count": result.entries})
    for tier in result.pending:
        messages.warning(request, STILL_PENDING[tier])


def _log(user: Any, first: list[CacheEntry], removed: int) -> None:
    """Write down that so many entries were removed, of which these were the first."""
    # (the database may have refused some)
    left = set(durable.entries().filter(pk__in=[entry.pk for entry in first]).values_list("pk"))
    gone = [entry for entry in first if (entry.pk,) not in left][:removed]
    lines = [
        log_line(
            user, entry, DELETION, _("Invalidated the answer under %(key)s.") % {"key": entry.key}
        )
        for entry in gone
    ]
    if rest := removed - len(gone):
        more = ngettext("%(count)d more entry", "%(count)d more entries", rest) % {"count": rest}
        message = _("Invalidated together with those listed one by one.")
        lines.append(log_line(user, None, DELETION, message, more))
    LogEntry.objects.bulk_create(lines)


def _samples(rows: CacheEntryQuerySet, may_read: bool) -> list[tuple[CacheEntry, str, str]]:
    newest = rows.order_by("-created_at")
    newest = newest.defer("payload", "digests", "words") if may_read else newest.light()
    return [
        (entry, phrases.class_name(entry.response_model), _asks(entry) if may_read else "")
        for entry in newest[:SAMPLE_ROWS]
    ]


def _asks(entry: CacheEntry) -> str:
    question = read_question(entry)
    if not isinstance(question, Question) or not question.messages:
        return ""
    said = " ".join(part.text.shown for part in question.messages[-1].parts if not part.label)
    said = " ".join(said.split())
    return said if len(said) <= SNIPPET else f"{said[:SNIPPET]}…"
