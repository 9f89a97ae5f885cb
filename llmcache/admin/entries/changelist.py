"""The list of entries, as quick with a million rows as with a hundred."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.core.paginator import Page, Paginator
from django.db.models import OrderBy
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from llmcache.admin.base import CONTENT
from llmcache.admin.entries import search
from llmcache.admin.entries.filters import BY_VALUE
from llmcache.reports import formatting

# So many are counted and can be paged through. To count a million takes as long as to read them.
MOST_COUNTED: Final = 10_000
# So many are found and sorted in a fifth of a second.
MOST_SORTED: Final = 125_000

# What can be sorted by, and the index that has it in that order. (Behind its columns, each index
# has the primary key; the key of an entry is unique.)
ORDERS: Final[dict[str, tuple[str, ...]]] = {
    "short_key": ("key",),
    "namespace": ("namespace", "created_at", "pk"),
    "model": ("model", "created_at", "pk"),
    "response_class": ("response_model", "created_at", "pk"),
    "saved_money": ("saved", "pk"),
    "stored_size": ("size", "pk"),
    "age": ("created_at", "pk"),
    "expiry": ("expires_at", "pk"),
}


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than `MOST_COUNTED`."""

    #: What was searched for, if anything, and whether by somebody who may read prompts.
    term = ""
    may_read = False

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: MOST_COUNTED + 1].count())

    @property
    def count(self) -> int:
        return min(self._counted, MOST_COUNTED)

    @property
    def is_more(self) -> bool:
        """Whether there are more than it counts."""
        return self._counted > MOST_COUNTED

    def page(self, number: int | str) -> Page[Any]:
        if self.term and (not self.is_more or self._are_few_words()):
            self.object_list = _sorted_afterwards(self.object_list)
        return super().page(number)

    def _are_few_words(self) -> bool:
        """Whether words are in so few prompts that they can be sorted, as PostgreSQL estimates."""
        if not search.is_of_words(self.term, may_read=self.may_read):
            return False
        rows: Any = self.object_list
        [plan] = json.loads(rows.order_by().explain(format="json"))
        return bool(plan["Plan"]["Plan Rows"] <= MOST_SORTED)


def _sorted_afterwards(rows: Any) -> Any:
    """`rows`, found first and then sorted: by expressions that no index has.

    Else a database may go along the index of times until it has met fifty of them by chance, which
    takes long where all are old.
    """
    columns = [(each.removeprefix("-"), each.startswith("-")) for each in rows.query.order_by]
    return rows.order_by(
        *(OrderBy(Coalesce(name, name), descending=is_backwards) for name, is_backwards in columns)
    )


class EntryList(ChangeList):
    """A list that never loads what was asked and answered, and sorts by indexes only."""

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.search_help_text = search.help_text(request.user.has_perm(CONTENT))

    @property
    def count_in_words(self) -> str:
        count = formatting.count(self.result_count)
        if self.paginator.is_more:
            return _("more than %(count)s cache entries") % {"count": count}
        said = ngettext("%(count)s cache entry", "%(count)s cache entries", self.result_count)
        return said % {"count": count}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        rows: Any = super().get_queryset(request, exclude_parameters)
        return rows.light()

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """By the first column that was asked for; all of an index point in one direction."""
        wanted = self.params.get(ORDER_VAR, "").partition(".")[0]
        columns = {str(number): name for number, name in enumerate(self.list_display)}
        name = columns.get(wanted.removeprefix("-"))
        if name in ORDERS:
            self.params[ORDER_VAR] = wanted
        else:
            self.params.pop(ORDER_VAR, None)
            name, wanted = "age", "-"
        order = ORDERS[str(name)]
        if name == "age":
            # Of one namespace, model or response model, its own index has them by age.
            filtered = [each.parameter_name for each in BY_VALUE]
            order = (*[each for each in filtered if each in self.params][:1], *order)
        sign = "-" if wanted.startswith("-") else ""
        return [sign + column for column in order]
