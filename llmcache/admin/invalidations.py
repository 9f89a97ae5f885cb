"""Who invalidated what, and the page where an invalidation is begun.

Criteria, a preview, a confirmation that names the number, and progress; and the hot copies that are
still to be removed.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin import phrases
from llmcache.admin.base import CONTENT, INVALIDATE, VIEW, ReadOnlyAdmin, RowPage, log_line
from llmcache.admin.entries.filters import MOST_VALUES, distinct_values
from llmcache.admin.entries.forms import VALUES, CriteriaForm
from llmcache.admin.entries.selected import SAMPLE_ROWS, Preview
from llmcache.discretion import without_content
from llmcache.models import Invalidation, PendingEviction
from llmcache.removal import resumable
from llmcache.removal.criteria import Criteria
from llmcache.reports.formatting import count
from llmcache.store.rows import tier as durable

logger = logging.getLogger("llmcache")

# So many are removed by the request that confirms; of more, the page shows how far it is.
FEW: Final = 2_000
# What a request has for it, in seconds.
CONFIRMING_SECONDS: Final = 3.0
CARRYING_SECONDS: Final = 1.0
# One more in so many may have been stored since the preview, and some; of more, it is asked again.
TOLERATED: Final = 10

# So many keys or tags of an invalidation are shown; how many more there are is said.
MOST_NAMED: Final = 5
KEY_SHOWN: Final = 12

CRITERIA: Final = {
    "keys": gettext_lazy("keys"),
    "tags": gettext_lazy("tags"),
    "response_model": gettext_lazy("response model"),
    "before": gettext_lazy("before"),
    "text": gettext_lazy("words of the prompt"),
}


def add(pages: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The form; on POST the preview, and with an agreed number the invalidation."""
    may_read = request.user.has_perm(CONTENT)
    if request.method != "POST":
        return _page(pages, request, CriteriaForm(initial=request.GET.dict(), may_read=may_read))
    form = CriteriaForm(request.POST, may_read=may_read)
    if not form.is_valid():
        return _page(pages, request, form)
    criteria: Criteria = form.cleaned_data["criteria"]
    preview = Preview.of(criteria.select(durable.entries()), may_read=may_read)
    agreed = request.POST.get("agreed", "")
    if "confirm" not in request.POST or not agreed.isdecimal() or len(agreed) >= 20:
        return _page(pages, request, form, preview)
    if preview.entries > int(agreed) + max(int(agreed), SAMPLE_ROWS) // TOLERATED:
        messages.warning(request, _("There are more than you have agreed to. Look again."))
        return _page(pages, request, form, preview)
    pk = resumable.start(criteria, request.user.get_username())
    log_line(request.user, resumable.find(pk), ADDITION, _("Began to invalidate.")).save()
    trouble = ""
    if preview.entries <= FEW or not _hand_over(pk):
        trouble = resumable.carry_on(pk, seconds=CONFIRMING_SECONDS)
    return _to_progress(pages, request, pk, trouble)


def _page(
    pages: ReadOnlyAdmin, request: HttpRequest, form: CriteriaForm, preview: Preview | None = None
) -> HttpResponse:
    context = {
        "title": _("Invalidate entries"),
        "form": form,
        "preview": preview,
        "suggested": [(name, distinct_values(name, MOST_VALUES)) for name in VALUES],
    }
    return pages.page(request, "add", context)


def _to_progress(pages: ReadOnlyAdmin, request: HttpRequest, pk: int, trouble: str) -> HttpResponse:
    if trouble:
        said = _("It is not done: %(trouble)s. What is removed stays removed; carry it on.")
        messages.error(request, said % {"trouble": trouble})
    return HttpResponseRedirect(pages.url(request, "change", pk))


def carry_on(pages: ReadOnlyAdmin, request: HttpRequest, row: Invalidation) -> HttpResponse:
    """Carry an invalidation on for a moment; to a script, say how far it is."""
    trouble = resumable.carry_on(row.pk, seconds=CARRYING_SECONDS)
    if not request.accepts("text/html"):
        # (looked at anew, and not in the transaction that the request may be in)
        return JsonResponse(progress(resumable.find(row.pk)) | {"trouble": trouble})
    return _to_progress(pages, request, row.pk, trouble)


def progress(row: Invalidation) -> dict[str, Any]:
    """How far an invalidation is."""
    total = max(row.total or 0, row.entries)
    said = _("%(done)s of %(total)s entries are removed.")
    return {
        "done": row.entries,
        "total": total,
        "finished": row.finished_at is not None,
        "said": said % {"done": count(row.entries), "total": count(total)},
    }


def _hand_over(pk: int) -> bool:
    """Whether a worker was told of it. If none comes, the page carries it on."""
    # It brings Celery along: most processes that show the admin hand nothing over.
    from llmcache.tasks import invalidate_later

    is_told = False
    resumable.reserve(pk)
    try:
        is_told = invalidate_later(pk)
    except ImportError as error:  # the extra "celery" is not installed
        logger.debug("llmcache: no queue for an invalidation: %s", without_content(error))
    except Exception as error:  # noqa: BLE001 - a broker may raise anything
        why = without_content(error)
        logger.warning("llmcache: an invalidation could not be handed over: %s", why)
    if not is_told:
        resumable.release(pk, resumable.WORKER)
    return is_told


@admin.register(Invalidation)
class InvalidationAdmin(ReadOnlyAdmin):
    """The audit trail."""

    list_display = ("started_at", "by", "what", "entries", "pending", "duration")
    list_display_links = ("started_at",)
    fields = ("started_at", "finished_at", "duration", "by", "what", "entries", "pending")
    empty_value_display = "–"
    search_fields = ("by",)
    search_help_text = gettext_lazy("Finds who invalidated.")
    pages = (RowPage("carry_on", carry_on, (VIEW, INVALIDATE)),)

    class Media:
        js = (Script("llmcache/admin.js", defer=True),)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever invalidates sees how far it is."""
        return super().has_view_permission(request, obj) or self.has_add_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """To invalidate is to add a row here."""
        return request.user.has_perms((VIEW, INVALIDATE))

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return add(self, request)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        context = {"title": _("Invalidation"), **(extra_context or {})}
        if row is not None and row.finished_at is None and row.total is not None:
            context["progress"] = progress(row)
            context["may_carry_on"] = self.has_add_permission(request)
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("what"))
    def what(self, invalidation: Invalidation) -> str:
        return describe(invalidation.criteria)

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, invalidation: Invalidation) -> str:
        if invalidation.finished_at is None:
            return _("not finished")
        taken = invalidation.finished_at - invalidation.started_at
        return _("%(seconds).1f s") % {"seconds": max(taken, timedelta()).total_seconds()}


@admin.register(PendingEviction)
class PendingEvictionAdmin(ReadOnlyAdmin):
    """Hot copies that an invalidation could not remove yet."""

    list_display = ("created_at", "copies", "until")
    fields = ("created_at", "until", "copies", "which")

    @admin.display(description=gettext_lazy("copies"))
    def copies(self, eviction: PendingEviction) -> int:
        return len(eviction.keys)

    @admin.display(description=gettext_lazy("keys"))
    def which(self, eviction: PendingEviction) -> str:
        return _listed([key[:KEY_SHOWN] for key in eviction.keys])


def describe(criteria: Any) -> str:
    """The criteria of an invalidation in words."""
    if not isinstance(criteria, dict):
        return json.dumps(criteria)
    return ", ".join(_criterion(str(name), value) for name, value in criteria.items())


def _criterion(name: str, value: Any) -> str:
    if name == "everything":
        return _("everything")
    if name == "selected" and isinstance(value, int):
        said = ngettext("%(count)d selected entry", "%(count)d selected entries", value)
        return said % {"count": value}
    if name == "response_model":
        value = phrases.class_name(str(value))
    elif name in {"keys", "tags"} and isinstance(value, list):
        value = _listed([str(each)[: KEY_SHOWN if name == "keys" else None] for each in value])
    return f"{CRITERIA.get(name, name)}: {value}"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    shown = " ".join(names[:MOST_NAMED])
    return shown if more <= 0 else f"{shown} {_('and %(count)d more') % {'count': more}}"
