"""`CacheEntry` in the admin: a list, a page for each entry, and a way to invalidate."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin import charts, phrases
from llmcache.admin.base import ASK_AGAIN, CONTENT, EXPORT, INVALIDATE, EntriesAdmin, RowPage
from llmcache.admin.entries import amend, ask_again, export, search, selected
from llmcache.admin.entries.changelist import ORDERS, CappedPaginator, EntryList
from llmcache.admin.entries.content import read_answer, read_question
from llmcache.admin.entries.filters import FILTERS
from llmcache.admin.entries.forms import TagsForm, TimeForm
from llmcache.admin.entries.nearest import read_neighbour
from llmcache.admin.health import read_trouble
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.store.rows import tier as durable
from llmcache.usage import hits

ASKS: Final = (CONTENT, ASK_AGAIN)

PAGES: Final = (
    RowPage("invalidate", selected.invalidate_one, (INVALIDATE,), ("GET", "POST")),
    RowPage("ask_again", ask_again.ask, ASKS),
    RowPage("proposal", ask_again.decide, ASKS, ("GET", "POST")),
    RowPage("pin", amend.pin, (INVALIDATE,)),
    RowPage("unpin", amend.unpin, (INVALIDATE,)),
    RowPage("time", amend.set_time, (INVALIDATE,)),
    RowPage("tags", amend.set_tags, (INVALIDATE,)),
    RowPage("export", export.download, (CONTENT, EXPORT), ("GET",)),
    RowPage("image", export.show_image, (CONTENT,), ("GET",), path="/<int:number>/"),
)

# Of what an entry was made of, so many are linked.
PARTS_SHOWN: Final = 20


@admin.register(CacheEntry)
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
    pages = PAGES

    class Media:
        css = {"all": ("llmcache/admin.css", "llmcache/charts.css")}

    def has_invalidate_permission(self, request: HttpRequest) -> bool:
        """As the action of the list needs it."""
        return request.user.has_perm(INVALIDATE)

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
        paginator.term = request.GET.get(SEARCH_VAR, "").strip()
        paginator.may_read = request.user.has_perm(CONTENT)
        return paginator

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[CacheEntryQuerySet, bool]:
        may_read = request.user.has_perm(CONTENT)
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
        context = {} if wanted else {"health": read_trouble()}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.action(
        permissions=["invalidate"],
        description=gettext_lazy("Invalidate selected %(verbose_name_plural)s"),
    )
    def invalidate_selected(
        self, request: HttpRequest, queryset: CacheEntryQuerySet
    ) -> HttpResponse | None:
        return selected.invalidate(self, request, queryset, back_url=request.get_full_path())

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
        may_read = request.user.has_perm(CONTENT)
        tags = sorted(entry.tags.values_list("tag", flat=True))
        context = {
            "title": _("Answer %(key)s") % {"key": entry},
            "entry": entry,
            "state": phrases.state(entry),
            "expiry": phrases.expiry(entry),
            "response_class": phrases.class_name(entry.response_model),
            "cost": phrases.money(entry.cost),
            "saved": phrases.money(entry.saved),
            "hits": phrases.hits(entry),
            "drawing": charts.hits_of(entry),
            "days": hits.DAYS,
            "digests": sorted(entry.part_digests.items()),
            "parts": _parts_of(entry),
            "neighbour": read_neighbour(entry, with_content=may_read),
            "tags": tags,
            "time_form": TimeForm(),
            "tags_form": TagsForm(initial={"tags": "\n".join(tags)}),
            "may_read": may_read,
        }
        if may_read:
            context |= {"question": read_question(entry), "answer": read_answer(entry)}
        if request.user.has_perms((CONTENT, EXPORT)):
            context["python_call"] = export.python_call(entry)
        return self.page(request, "change_form", {**context, **(extra_context or {})})


def _moment(moment: datetime, words: str) -> str:
    exact = localize(timezone.localtime(moment) if timezone.is_aware(moment) else moment)
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, words)


def _parts_of(entry: CacheEntry) -> CacheEntryQuerySet:
    """Those of the answers that it was made of which are stored now."""
    return durable.entries().light().filter(key__in=entry.parts.values("key"))[:PARTS_SHOWN]
