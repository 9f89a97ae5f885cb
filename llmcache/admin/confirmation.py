"""The page between choosing entries and invalidating them, and what is said afterwards."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin.phrases import class_name
from llmcache.admin.removal import Survey, invalidate_rows
from llmcache.models import CacheEntryQuerySet
from llmcache.outcomes import Tier

# The field that says yes, by naming the newest of the entries that the page spoke of.
AGREED: Final = "agreed_up_to"

STILL_PENDING: Final = {
    Tier.HOT: gettext_lazy(
        "The hot tier could not be reached: its copies of these entries may be served until they "
        "expire there (LLMCACHE['HOT_TTL'])."
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
