"""The invalidation page: criteria, a preview, a confirmation that names the number, progress."""

from __future__ import annotations

import logging
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.models import ADDITION
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.translation import gettext as _

from llmcache.admin.base import CONTENT, ReadOnlyAdmin, log_line
from llmcache.admin.entries.filters import MOST_VALUES, distinct_values
from llmcache.admin.entries.forms import VALUES, CriteriaForm
from llmcache.admin.entries.preview import SAMPLE_ROWS, Preview
from llmcache.discretion import without_content
from llmcache.models import Invalidation
from llmcache.removal import claims, resumable
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


def add(admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The form; on POST the preview, and with an agreed number the invalidation."""
    may_read = request.user.has_perm(CONTENT)
    if request.method != "POST":
        return _page(admin, request, CriteriaForm(initial=request.GET.dict(), may_read=may_read))
    form = CriteriaForm(request.POST, may_read=may_read)
    if not form.is_valid():
        return _page(admin, request, form)
    criteria: Criteria = form.cleaned_data["criteria"]
    preview = Preview.of(criteria.select(durable.entries()), may_read=may_read)
    agreed = request.POST.get("agreed", "")
    if "confirm" not in request.POST or not agreed.isdecimal() or len(agreed) >= 20:
        return _page(admin, request, form, preview)
    if preview.entries > int(agreed) + max(int(agreed), SAMPLE_ROWS) // TOLERATED:
        messages.warning(request, _("There are more than you have agreed to. Look again."))
        return _page(admin, request, form, preview)
    pk = resumable.start(criteria, request.user.get_username())
    log_line(request.user, claims.find(pk), ADDITION, _("Began to invalidate.")).save()
    trouble = ""
    if preview.entries <= FEW or not _hand_over(pk):
        trouble = resumable.carry_on(pk, seconds=CONFIRMING_SECONDS)
    return _to_progress(admin, request, pk, trouble)


def carry_on(admin: ReadOnlyAdmin, request: HttpRequest, row: Invalidation) -> HttpResponse:
    """Carry an invalidation on for a moment; to a script, say how far it is."""
    trouble = resumable.carry_on(row.pk, seconds=CARRYING_SECONDS)
    if not request.accepts("text/html"):
        # (looked at anew, and not in the transaction that the request may be in)
        return JsonResponse(progress(claims.find(row.pk)) | {"trouble": trouble})
    return _to_progress(admin, request, row.pk, trouble)


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
    admin: ReadOnlyAdmin, request: HttpRequest, form: CriteriaForm, preview: Preview | None = None
) -> HttpResponse:
    context = {
        "title": _("Invalidate entries"),
        "form": form,
        "preview": preview,
        "suggested": [(name, distinct_values(name, MOST_VALUES)) for name in VALUES],
    }
    return admin.page(request, "add", context)


def _to_progress(admin: ReadOnlyAdmin, request: HttpRequest, pk: int, trouble: str) -> HttpResponse:
    if trouble:
        said = _("It is not done: %(trouble)s. What is removed stays removed; carry it on.")
        messages.error(request, said % {"trouble": trouble})
    return HttpResponseRedirect(admin.url(request, "change", pk))
