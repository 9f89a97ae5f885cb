"""The filters of the list. Each costs at most one query and shows a bounded number of choices."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin.phrases import class_name
from llmcache.models import CacheEntryQuerySet

# There may be a namespace for each of a million tenants. Those left out are found by searching.
MOST_VALUES: Final = 50


class ValueFilter(admin.SimpleListFilter):
    """The values of one column, as far as they fit in a list, and the chosen one."""

    template = "admin/llmcache/cacheentry/filter.html"
    parameter_name: str
    leaves_out = False

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        column = self.parameter_name
        # In the order of an index, so that the database can stop early.
        rows = model_admin.get_queryset(request).order_by(column)
        found = list(rows.values_list(column, flat=True).distinct()[: MOST_VALUES + 1])
        self.leaves_out = len(found) > MOST_VALUES
        values = found[:MOST_VALUES]
        chosen = self.value()
        if chosen is not None and chosen not in values:
            values.insert(0, chosen)
        return self.named(values)

    def named(self, values: list[str]) -> list[tuple[str, str]]:
        return [(value, value or _("(none)")) for value in values]

    def queryset(self, request: HttpRequest, queryset: Any) -> CacheEntryQuerySet | None:
        value = self.value()
        if value is None:
            return None
        if "\0" in value:
            raise IncorrectLookupParameters  # PostgreSQL has no such text
        rows: CacheEntryQuerySet = queryset.filter(**{self.parameter_name: value})
        return rows


class NamespaceFilter(ValueFilter):
    title = gettext_lazy("namespace")
    parameter_name = "namespace"


class ModelFilter(ValueFilter):
    title = gettext_lazy("model")
    parameter_name = "model"


class ResponseModelFilter(ValueFilter):
    title = gettext_lazy("response model")
    parameter_name = "response_model"

    def named(self, values: list[str]) -> list[tuple[str, str]]:
        """By the names of the classes; those that share a name in full."""
        bearers = Counter(map(class_name, values))
        return [
            (path, class_name(full) if bearers[class_name(path)] == 1 else full)
            for path, full in super().named(values)
        ]


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("fresh", gettext_lazy("Fresh")),
            ("expired", gettext_lazy("Expired")),
            ("never", gettext_lazy("Never expires")),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> CacheEntryQuerySet | None:
        rows: CacheEntryQuerySet = queryset
        match self.value():
            case "fresh":
                return rows.fresh()
            case "expired":
                return rows.expired()
            case "never":
                return rows.filter(expires_at=None)
        return None


class AgeFilter(admin.SimpleListFilter):
    title = gettext_lazy("age")
    parameter_name = "age"

    YOUNGER: Final = {
        "hour": (timedelta(hours=1), gettext_lazy("Past hour")),
        "day": (timedelta(days=1), gettext_lazy("Past 24 hours")),
        "week": (timedelta(days=7), gettext_lazy("Past 7 days")),
        "month": (timedelta(days=30), gettext_lazy("Past 30 days")),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        younger = [(name, label) for name, (_age, label) in self.YOUNGER.items()]
        return [*younger, ("older", gettext_lazy("Older than 30 days"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> CacheEntryQuerySet | None:
        rows: CacheEntryQuerySet = queryset
        value = self.value()
        if value == "older":
            return rows.filter(created_at__lt=timezone.now() - self.YOUNGER["month"][0])
        if value in self.YOUNGER:
            return rows.filter(created_at__gte=timezone.now() - self.YOUNGER[value][0])
        return None


FILTERS: Final = (NamespaceFilter, ModelFilter, ResponseModelFilter, StateFilter, AgeFilter)
