"""The filters of the list. Each costs at most one query and shows a bounded number of choices.

``SELECT DISTINCT`` reads every row for the few values that there are. So the values of a column are
found by skipping through its index, from each to the next one
(https://wiki.postgresql.org/wiki/Loose_indexscan). MariaDB and MySQL do so of themselves, and only
then.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import connections
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin.phrases import class_name
from llmcache.background.transactions import database_alias
from llmcache.models import CacheEntry, CacheEntryQuerySet

# There may be a namespace for each of a million tenants. Those left out are found by searching.
MOST_VALUES: Final = 50

SKIPPING: Final = """
WITH RECURSIVE found (value, number) AS (
    SELECT MIN({name}), 1 FROM {table}
    UNION ALL
    SELECT (SELECT MIN({name}) FROM {table} WHERE {name} > found.value), found.number + 1
    FROM found WHERE found.value IS NOT NULL AND found.number < %s
) SELECT value FROM found WHERE value IS NOT NULL ORDER BY value
"""
DISTINCT: Final = "SELECT DISTINCT {name} FROM {table} ORDER BY {name} LIMIT %s"


class ValueFilter(admin.SimpleListFilter):
    """The values of one column, as far as they fit in a list, and the chosen one."""

    template = "admin/llmcache/cacheentry/filter.html"
    parameter_name: str
    leaves_out = False

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        column = self.parameter_name
        found = distinct_values(column, MOST_VALUES + 1)
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
        # As a range from the value to itself: so the rows come in the order of the index that
        # begins with this column (see `EntryList.get_ordering`), and no database looks for the
        # first of them all along the index of times, which is slow where they are old.
        name = self.parameter_name
        rows: CacheEntryQuerySet = queryset.filter(**{f"{name}__gte": value, f"{name}__lte": value})
        return rows


def distinct_values(column: str, most: int) -> list[str]:
    """The first values of a column that an index begins with, in its order."""
    connection = connections[database_alias()]
    name, table = map(connection.ops.quote_name, (column, CacheEntry._meta.db_table))
    statement = DISTINCT if connection.vendor == "mysql" else SKIPPING
    with connection.cursor() as cursor:
        cursor.execute(statement.format(name=name, table=table), [most])
        return [value for [value] in cursor.fetchall()]


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
            ("pinned", gettext_lazy("Pinned")),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> CacheEntryQuerySet | None:
        rows: CacheEntryQuerySet = queryset
        match self.value():
            case "fresh":
                # (in a form that an index serves)
                return rows.filter(Q(expires_at__gt=timezone.now()) | Q(expires_at=None))
            case "expired":
                return rows.expired()
            case "never":
                return rows.filter(expires_at=None)
            case "pinned":
                return rows.filter(expires_at=None, pinned=True)
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


BY_VALUE: Final = (NamespaceFilter, ModelFilter, ResponseModelFilter)
FILTERS: Final = (*BY_VALUE, StateFilter, AgeFilter)
