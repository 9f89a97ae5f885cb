"""Who invalidated what, and which hot copies are still to be removed: to be read only."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin import phrases
from llmcache.admin.base import INVALIDATE, VIEW, ReadOnlyAdmin, RowPage
from llmcache.admin.invalidations import form
from llmcache.models import Invalidation, PendingEviction

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


class InvalidationAdmin(ReadOnlyAdmin):
    """The audit trail."""

    list_display = ("started_at", "who", "what", "entries", "still_pending", "duration")
    list_display_links = ("started_at",)
    fields = ("started_at", "finished_at", "duration", "who", "what", "entries", "still_pending")
    search_fields = ("by",)
    search_help_text = gettext_lazy("Finds who invalidated.")
    pages = (RowPage("carry_on", form.carry_on, (VIEW, INVALIDATE)),)

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
        return form.add(self, request)

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
            context["progress"] = form.progress(row)
            context["may_carry_on"] = self.has_add_permission(request)
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("by"), ordering="by")
    def who(self, invalidation: Invalidation) -> str:
        return invalidation.by or "–"

    @admin.display(description=gettext_lazy("what"))
    def what(self, invalidation: Invalidation) -> str:
        return describe(invalidation.criteria)

    @admin.display(description=gettext_lazy("pending"), ordering="pending")
    def still_pending(self, invalidation: Invalidation) -> str:
        return invalidation.pending or "–"

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, invalidation: Invalidation) -> str:
        if invalidation.finished_at is None:
            return _("not finished")
        taken = invalidation.finished_at - invalidation.started_at
        return _("%(seconds).1f s") % {"seconds": max(taken, timedelta()).total_seconds()}


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
