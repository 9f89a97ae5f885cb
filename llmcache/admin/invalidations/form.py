"""The invalidation page: criteria, a preview, a confirmation that names the number, progress."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Self

from django.contrib import messages
from django.contrib.admin.models import ADDITION
from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from llmcache.admin import phrases
from llmcache.admin.base import ReadOnlyAdmin, log
from llmcache.admin.entries.content import Question, read_question
from llmcache.admin.entries.filters import MOST_VALUES, distinct_values
from llmcache.admin.entries.forms import VALUES, CriteriaForm
from llmcache.discretion import without_content
from llmcache.models import CacheEntry, CacheEntryQuerySet, Invalidation
from llmcache.removal import claims, resumable
from llmcache.removal.criteria import Criteria
from llmcache.store.rows import tier as durable

logger = logging.getLogger("llmcache")

SAMPLE_ROWS: Final = 10
SNIPPET: Final = 120
# So many are removed by the request that confirms; of more, the page shows how far it is.
FEW: Final = 2_000
# What a request has for it, in seconds.
CONFIRMING_SECONDS: Final = 3.0
CARRYING_SECONDS: Final = 1.0
# One more in so many may have been stored since the preview, and some; of more, it is asked again.
TOLERATED: Final = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the entries to go; `asks` are the first words of its last message."""

    entry: CacheEntry
    response_class: str
    asks: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What is about to be removed: how many, what they have saved, and a few of them."""

    entries: int
    pinned: int
    unpriced: int
    size: int
    saved: int
    samples: list[Sample]

    @classmethod
    def of(cls, criteria: Criteria, *, may_read: bool) -> Self:
        rows = criteria.select(durable.entries())
        sums = rows.aggregate(
            entries=Count("pk"),
            pinned=Count("pk", filter=Q(pinned=True)),
            unpriced=Count("pk", filter=Q(cost=None, hits__gt=0)),
            size=Sum("size"),
            saved=Sum("saved"),
        )
        return cls(
            entries=sums["entries"],
            pinned=sums["pinned"],
            unpriced=sums["unpriced"],
            size=sums["size"] or 0,
            saved=int(sums["saved"] or 0),
            samples=_samples(rows, may_read),
        )

    @property
    def more(self) -> int:
        return self.entries - len(self.samples)

    @property
    def count_in_words(self) -> str:
        said = ngettext("%(count)s entry", "%(count)s entries", self.entries)
        return said % {"count": phrases.number(self.entries)}

    @property
    def saved_in_words(self) -> str:
        return phrases.money(self.saved)


def add(admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The form; on POST the preview, and with an agreed number the invalidation."""
    may_read = request.user.has_perm("llmcache.view_content_cacheentry")
    if request.method != "POST":
        form = CriteriaForm(initial=request.GET.dict(), may_read=may_read)
        return _page(admin, request, form, None)
    form = CriteriaForm(request.POST, may_read=may_read)
    if not form.is_valid():
        return _page(admin, request, form, None)
    criteria: Criteria = form.cleaned_data["criteria"]
    agreed = request.POST.get("agreed", "")
    if "confirm" in request.POST and agreed.isdecimal() and len(agreed) < 20:
        return _confirmed(admin, request, form, int(agreed), may_read)
    return _page(admin, request, form, Preview.of(criteria, may_read=may_read))


def carry_on(admin: ReadOnlyAdmin, request: HttpRequest, row: Invalidation) -> HttpResponse:
    """Carry an invalidation on for a moment; to a script, say how far it is."""
    trouble = resumable.carry_on(row.pk, seconds=CARRYING_SECONDS)
    if not request.accepts("text/html"):
        # (looked at anew, and not in the transaction that the request may be in)
        return JsonResponse(progress(claims.find(row.pk)) | {"trouble": trouble})
    if trouble:
        messages.error(request, _in_trouble(trouble))
    return HttpResponseRedirect(admin.url(request, "change", row.pk))


def progress(row: Invalidation) -> dict[str, Any]:
    """How far an invalidation is."""
    total = max(row.total or 0, row.entries)
    said = _("%(done)s of %(total)s entries are removed.")
    return {
        "done": row.entries,
        "total": total,
        "finished": row.finished_at is not None,
        "said": said % {"done": phrases.number(row.entries), "total": phrases.number(total)},
    }


def _confirmed(
    admin: ReadOnlyAdmin,
    request: HttpRequest,
    form: CriteriaForm,
    agreed: int,
    may_read: bool,
) -> HttpResponse:
    criteria: Criteria = form.cleaned_data["criteria"]
    preview = Preview.of(criteria, may_read=may_read)
    if preview.entries > agreed + max(agreed, SAMPLE_ROWS) // TOLERATED:
        messages.warning(request, _("There are more than you have agreed to. Look again."))
        return _page(admin, request, form, preview)
    pk = resumable.start(criteria, request.user.get_username())
    log(request.user, claims.find(pk), ADDITION, _("Began to invalidate."))
    trouble = ""
    if preview.entries <= FEW or not _hand_over(pk):
        trouble = resumable.carry_on(pk, seconds=CONFIRMING_SECONDS)
    if trouble:
        messages.error(request, _in_trouble(trouble))
    return HttpResponseRedirect(admin.url(request, "change", pk))


def _hand_over(pk: int) -> bool:
    """Whether a worker was told of it. If none comes, the page carries it on."""
    # It brings Celery along: most processes that show the admin hand nothing over.
    from llmcache.tasks import invalidate_later

    is_told = False
    claims.reserve(pk)
    try:
        is_told = invalidate_later(pk)
    except ImportError as error:  # the extra "celery" is not installed
        logger.debug("llmcache: no queue for an invalidation: %s", without_content(error))
    except Exception as error:  # noqa: BLE001 - a broker may raise anything
        why = without_content(error)
        logger.warning("llmcache: an invalidation could not be handed over: %s", why)
    if not is_told:
        claims.release(pk, claims.WORKER)
    return is_told


def _page(
    admin: ReadOnlyAdmin, request: HttpRequest, form: CriteriaForm, preview: Preview | None
) -> HttpResponse:
    context = {
        "title": _("Invalidate entries"),
        "form": form,
        "preview": preview,
        "suggested": [(name, distinct_values(name, MOST_VALUES)) for name in VALUES],
    }
    return admin.page(request, "add", context)


def _samples(rows: CacheEntryQuerySet, may_read: bool) -> list[Sample]:
    newest: QuerySet[CacheEntry] = rows.order_by("-created_at")
    newest = newest.defer("payload", "digests", "words") if may_read else rows.light()
    return [
        Sample(entry, phrases.class_name(entry.response_model), _asks(entry) if may_read else "")
        for entry in newest[:SAMPLE_ROWS]
    ]


def _asks(entry: CacheEntry) -> str:
    question = read_question(entry)
    if not isinstance(question, Question) or not question.messages:
        return ""
    said = " ".join(part.text.shown for part in question.messages[-1].parts if not part.label)
    said = " ".join(said.split())
    return said if len(said) <= SNIPPET else f"{said[:SNIPPET]}…"


def _in_trouble(trouble: str) -> str:
    return _("It is not done: %(trouble)s. What is removed stays removed; carry it on.") % {
        "trouble": trouble
    }
