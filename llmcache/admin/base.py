"""What the pages have in common: rows that nobody edits, addresses, templates, and the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from llmcache.background.transactions import database_alias
from llmcache.models import CacheEntry, Invalidation

#: Given the admin, the request, the entry, and what else is in the address.
Respond = Callable[..., HttpResponse]


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows rows, newest first. Nobody adds, edits or deletes them here."""

    ordering = ("-pk",)
    list_per_page = 50
    show_full_result_count = False

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
        self.message_user(
            request,
            _("This entry is not stored any more: it was invalidated, or has expired."),
            messages.WARNING,
        )
        return HttpResponseRedirect(self.url(request, "changelist"))

    def back_to(self, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
        """To the page of an entry."""
        return HttpResponseRedirect(self.url(request, "change", entry.pk))

    def refuse(self, request: HttpRequest, entry: CacheEntry, why: str) -> HttpResponse:
        """To the page of an entry, with the reason why nothing was done."""
        messages.error(request, why)
        return self.back_to(request, entry)


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One address below that of an entry.

    `needs` are the names of the permissions that it takes besides viewing, as in
    ``has_<name>_permission``. What changes something is only done by POST.
    """

    name: str
    respond: Respond
    needs: tuple[str, ...]
    methods: tuple[str, ...] = ("POST",)
    #: What follows the name in the address.
    path: str = "/"


def log(user: Any, about: CacheEntry | Invalidation, action: int, message: str) -> None:
    """Write down in the admin's log what `user` did; `action` is one of Django's flags."""
    subject = f"{about} ({about.namespace})" if isinstance(about, CacheEntry) else str(about)
    log_entry(user.pk, action, str(about.pk), subject, message, type(about)).save()


def log_entry(
    user_id: Any,
    action: int,
    object_id: str | None,
    subject: str,
    message: str,
    model: type[Model] = CacheEntry,
) -> LogEntry:
    """A line of the log that is still to be saved; `object_id` None: about several entries."""
    return LogEntry(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(model),
        object_id=object_id,
        object_repr=subject[:200],
        action_flag=action,
        change_message=message,
    )
