"""What the pages have in common: rows that nobody edits, addresses, templates, and the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from llmcache.background.transactions import database_alias
from llmcache.models import CacheEntry, Invalidation

VIEW: Final = "llmcache.view_cacheentry"
#: To read prompts and answers.
CONTENT: Final = "llmcache.view_content_cacheentry"
#: To remove, and to say how long and under which tags what stays is kept.
INVALIDATE: Final = "llmcache.invalidate_cacheentry"
ASK_AGAIN: Final = "llmcache.ask_again_cacheentry"
EXPORT: Final = "llmcache.export_cacheentry"


@dataclass(frozen=True, slots=True)
class RowPage:
    """One address below that of a row. What changes something is only done by POST."""

    name: str
    #: Given the admin, the request, the row, and what else is in the address.
    respond: Callable[..., HttpResponse]
    #: The permissions that it takes besides viewing.
    needs: tuple[str, ...]
    methods: tuple[str, ...] = ("POST",)
    #: What follows the name in the address.
    path: str = "/"


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows rows, newest first. Nobody adds, edits or deletes them here."""

    ordering = ("-pk",)
    list_per_page = 50
    show_full_result_count = False
    pages: tuple[RowPage, ...] = ()

    class Media:
        css = {"all": ("llmcache/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.using(database_alias())

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{page.name}{page.path}",
                self.admin_site.admin_view(partial(self._respond, page)),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{page.name}",
            )
            for page in self.pages
        ]
        return [*own, *super().get_urls()]

    def _respond(
        self, page: RowPage, request: HttpRequest, object_id: str, **arguments: Any
    ) -> HttpResponse:
        if not (self.has_view_permission(request) and request.user.has_perms(page.needs)):
            raise PermissionDenied
        if request.method not in page.methods:
            return HttpResponseNotAllowed(page.methods)
        row = self.get_object(request, unquote(object_id))
        return self.gone(request) if row is None else page.respond(self, request, row, **arguments)

    def gone(self, request: HttpRequest) -> HttpResponse:
        """There is no such row (any more)."""
        raise Http404

    def page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        """A page of ours, by the name of its template."""
        request.current_app = self.admin_site.name
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "preserved_filters": self.get_preserved_filters(request),
        }
        template = f"admin/llmcache/{self.opts.model_name}/{name}.html"
        return TemplateResponse(request, template, {**shared, **context})

    def url(self, request: HttpRequest, name: str, *args: object) -> str:
        """The address of a page, with the filters that the list had."""
        page = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        url = reverse(page, args=args, current_app=self.admin_site.name)
        filters: Any = {"opts": self.opts, "preserved_filters": self.get_preserved_filters(request)}
        return add_preserved_filters(filters, url)


class EntriesAdmin(ReadOnlyAdmin):
    """What the pages of one entry lead to."""

    def gone(self, request: HttpRequest) -> HttpResponse:
        messages.warning(
            request, _("This entry is not stored any more: it was invalidated, or has expired.")
        )
        return HttpResponseRedirect(self.url(request, "changelist"))

    def back_to(self, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
        """To the page of an entry."""
        return HttpResponseRedirect(self.url(request, "change", entry.pk))

    def refuse(self, request: HttpRequest, entry: CacheEntry, why: str) -> HttpResponse:
        """To the page of an entry, with the reason why nothing was done."""
        messages.error(request, why)
        return self.back_to(request, entry)


def log_line(
    user: Any,
    about: CacheEntry | Invalidation | None,
    action: int,
    message: str,
    subject: str = "",
) -> LogEntry:
    """A line of the admin's log, to be saved: what `user` did; `action` is one of Django's flags.

    `about` None: several entries, which `subject` names.
    """
    if isinstance(about, CacheEntry):
        subject = f"{about} ({about.namespace})"
    return LogEntry(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(about or CacheEntry),
        object_id=str(about.pk) if about else None,
        object_repr=(subject or str(about))[:200],
        action_flag=action,
        change_message=message,
    )
