"""Charts on pages, each with what it says as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from llmcache.admin import charts
from llmcache.admin.charts import Chart, Column, Part
from llmcache.models import CacheEntry
from llmcache.reports import formatting
from llmcache.usage import history

# A chart of hits goes up to two of them at least.
LEAST_HITS: Final = 2


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, what its colours mean, and the same as a table."""

    id: str
    title: str
    chart: Chart
    legend: list[tuple[str, str]]
    heads: list[str]
    rows: list[tuple[str, list[str]]]


def hits(entry: CacheEntry) -> Drawing | None:
    """How often an entry was served on each of the last days; None where it was on none."""
    served = history.of_days(entry.pk) if entry.hits else {}
    if not any(served.values()):
        return None
    named = [(date_format(day, "j M"), count) for day, count in served.items()]
    columns = [
        Column(name, name, [Part("hit", count, formatting.count(count))]) for name, count in named
    ]
    return Drawing(
        "hits",
        _("Hits over time"),
        charts.stacked(columns, lambda value: formatting.rough(round(value)), least=LEAST_HITS),
        [],
        [_("hits")],
        [(name, [formatting.count(count)]) for name, count in named],
    )
