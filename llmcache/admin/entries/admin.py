"""`CacheEntry` in the admin: a list, a page for each entry, and a way to invalidate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin import drawings, phrases
from llmcache.admin.base import EntriesAdmin, EntryPage
from llmcache.admin.entries import amend, ask_again, export, image_page, search, selected
from llmcache.admin.entries.changelist import ORDERS, CappedPaginator, EntryList
from llmcache.admin.entries.content import read_answer, read_question
from llmcache.admin.entries.filters import FILTERS
from llmcache.admin.entries.forms import TagsForm, TimeForm
from llmcache.admin.entries.nearest import read_neighbour
from llmcache.admin.entries.selected import Survey
from llmcache.admin.health import Health
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.store.rows import tier as durable
from llmcache.usage import history

PAGES: Final = (*ask_again.PAGES, *amend.PAGES, *export.PAGES, *image_page.PAGES)

# Of what an entry was made of, so many are linked.
PARTS_SHOWN: Final = 20

PERMISSION: Final = "llmcache.{}_cacheentry"


class CacheEntryAdmin(EntriesAdmin):
    """Shows what is stored. Nothing can be added or edited here: only a model gives answers."""

    list_display = (
        "short_key",
        "namespace",
        "model",
        "response_class",
        "hits",
        "saved_money",
        "stored_size",
        "age",
        "expiry",
    )
    sortable_by = tuple(ORDERS)
    list_filter = FILTERS
    ordering = ("-created_at",)
    # Counting the rows of each choice of a filter takes as long as the table is.
    show_facets = admin.ShowFacets.NEVER
    # These give the list its search box; `search` says what it does.
    search_fields = ("key", "namespace")
    actions = ("invalidate_selected",)

    class Media:
        css = {"all": ("llmcache/admin.css", "llmcache/charts.css")}

    # Who may do what

    def has_content_permission(self, request: HttpRequest) -> bool:
        """To read prompts and answers."""
        return request.user.has_perm(PERMISSION.format("view_content"))

    def has_invalidate_permission(self, request: HttpRequest) -> bool:
        """To remove, and to say how long and under which tags what stays is kept."""
        return request.user.has_perm(PERMISSION.format("invalidate"))

    def has_ask_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION.format("ask_again"))

    def has_export_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION.format("export"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only what the filters offer.

        Else whoever may see the list could read prompts and answers that the page would not show,
        letter by letter: ``?payload__startswith=``.
        """
        return lookup in {list_filter.parameter_name for list_filter in FILTERS}

    # The list

    def get_queryset(self, request: HttpRequest) -> CacheEntryQuerySet:
        return durable.entries().defer("words").order_by(*self.ordering)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EntryList

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> CappedPaginator:
        paginator = CappedPaginator(*args, **kwargs)
        term = request.GET.get(SEARCH_VAR, "").strip()
        paginator.is_search = bool(term)
        may_read = self.has_content_permission(request)
        paginator.is_of_words = bool(term) and search.is_of_words(term, may_read=may_read)
        return paginator

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[CacheEntryQuerySet, bool]:
        may_read = self.has_content_permission(request)
        return search.find(queryset, search_term, may_read=may_read), False

    @admin.display(description=gettext_lazy("key"), ordering="key")
    def short_key(self, entry: CacheEntry) -> str:
        return format_html('<span class="llmcache-key" title="{}">{}</span>', entry.key, entry)

    @admin.display(description=gettext_lazy("response model"), ordering="response_model")
    def response_class(self, entry: CacheEntry) -> str:
        name = phrases.class_name(entry.response_model)
        return format_html('<span title="{}">{}</span>', entry.response_model, name or "-")

    @admin.display(description=gettext_lazy("saved"), ordering="saved")
    def saved_money(self, entry: CacheEntry) -> str:
        return phrases.money(entry.saved)

    @admin.display(description=gettext_lazy("size"), ordering="size")
    def stored_size(self, entry: CacheEntry) -> str:
        return filesizeformat(entry.size)

    @admin.display(description=gettext_lazy("age"), ordering="created_at")
    def age(self, entry: CacheEntry) -> str:
        return _moment(entry.created_at, phrases.age(entry.created_at))

    @admin.display(description=gettext_lazy("expiry"), ordering="expires_at")
    def expiry(self, entry: CacheEntry) -> str:
        words = phrases.expiry(entry)
        return format_html(
            '<span class="llmcache-{}">{}</span>',
            phrases.state(entry),
            _moment(entry.expires_at, words) if entry.expires_at else words,
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        wanted = request.POST.getlist("action")
        if "invalidate_selected" in wanted and not self.has_invalidate_permission(request):
            # Django would act as if nothing had been asked for.
            raise PermissionDenied
        context = {} if wanted else {"health": Health.read()}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    # The page of an entry

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """In the place of a form with a field for each column."""
        is_read = request.method in {"GET", "HEAD"}
        if object_id is None or not (is_read and self.has_view_permission(request)):
            raise PermissionDenied
        entry = self.get_object(request, unquote(object_id))
        if entry is None:
            return self.gone(request)
        facts = {
            "title": _("Answer %(key)s") % {"key": entry},
            "entry": entry,
            "state": phrases.state(entry),
            "expiry": phrases.expiry(entry),
            "response_class": phrases.class_name(entry.response_model),
            "cost": phrases.money(entry.cost),
            "saved": phrases.money(entry.saved),
            "hits": phrases.hits(entry),
            "drawing": drawings.hits(entry),
            "days": history.DAYS,
            "digests": sorted(entry.part_digests.items()),
            "parts": _parts_of(entry),
            "neighbour": read_neighbour(entry, with_content=self.has_content_permission(request)),
        }
        offered = {**self._buttons(request, entry), **self._content(request, entry)}
        return self.page(request, "change_form", {**facts, **offered, **(extra_context or {})})

    def _buttons(self, request: HttpRequest, entry: CacheEntry) -> dict[str, Any]:
        """What may be done with the entry, and the forms for it."""
        tags = sorted(entry.tags.values_list("tag", flat=True))
        return {
            "tags": tags,
            "may_invalidate": self.has_invalidate_permission(request),
            "may_ask_again": self.has_ask_again_permission(request),
            "may_export": self.has_export_permission(request),
            "time_form": TimeForm(),
            "tags_form": TagsForm(initial={"tags": "\n".join(tags)}),
        }

    def _content(self, request: HttpRequest, entry: CacheEntry) -> dict[str, Any]:
        """What was asked and answered, for those who may read it."""
        if not self.has_content_permission(request):
            return {"may_read": False}
        may_export = self.has_export_permission(request)
        return {
            "may_read": True,
            "question": read_question(entry),
            "answer": read_answer(entry),
            "python_call": export.python_call(entry) if may_export else None,
        }

    # Invalidating

    def get_urls(self) -> list[URLPattern]:
        pages = [self._path("invalidate", "/", self.invalidate_view)]
        pages += [self._path(page.name, page.path, self._guarded(page)) for page in PAGES]
        return [*pages, *super().get_urls()]

    def _path(self, name: str, rest: str, view: Callable[..., HttpResponse]) -> URLPattern:
        full_name = f"{self.opts.app_label}_{self.opts.model_name}_{name}"
        return path(
            f"<path:object_id>/{name}{rest}", self.admin_site.admin_view(view), name=full_name
        )

    def _guarded(self, page: EntryPage) -> Callable[..., HttpResponse]:
        """The view of a page, for those who may see it."""

        def view(request: HttpRequest, object_id: str, **arguments: Any) -> HttpResponse:
            needed = [getattr(self, f"has_{name}_permission") for name in ("view", *page.needs)]
            if not all(may(request) for may in needed):
                raise PermissionDenied
            if request.method not in page.methods:
                return HttpResponseNotAllowed(page.methods)
            entry = self.get_object(request, unquote(object_id))
            if entry is None:
                return self.gone(request)
            return page.respond(self, request, entry, **arguments)

        return view

    @admin.action(
        permissions=["invalidate"],
        description=gettext_lazy("Invalidate selected %(verbose_name_plural)s"),
    )
    def invalidate_selected(
        self, request: HttpRequest, queryset: CacheEntryQuerySet
    ) -> HttpResponse | None:
        return self._invalidate(request, queryset, back_url=request.get_full_path())

    def invalidate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The way from the page of an entry."""
        if not (self.has_view_permission(request) and self.has_invalidate_permission(request)):
            raise PermissionDenied
        entry = self.get_object(request, unquote(object_id))
        if entry is None:
            return self.gone(request)
        rows = self.get_queryset(request).filter(pk=entry.pk)
        asked = self._invalidate(request, rows, back_url=self.url(request, "change", entry.pk))
        return asked or HttpResponseRedirect(self.url(request, "changelist"))

    def _invalidate(
        self, request: HttpRequest, rows: CacheEntryQuerySet, back_url: str
    ) -> HttpResponse | None:
        """Ask; once that was agreed to, do it, and return None."""
        newest = selected.agreed(request)
        if newest is not None:
            selected.carry_out(request, rows.filter(pk__lte=newest))
            return None
        context = selected.question(request, Survey.of(rows))
        return self.page(request, "invalidate_confirmation", {**context, "back_url": back_url})


def _moment(moment: datetime, words: str) -> str:
    exact = localize(timezone.localtime(moment) if timezone.is_aware(moment) else moment)
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, words)


def _parts_of(entry: CacheEntry) -> CacheEntryQuerySet:
    """Those of the answers that it was made of which are stored now."""
    return durable.entries().light().filter(key__in=entry.parts.values("key"))[:PARTS_SHOWN]
