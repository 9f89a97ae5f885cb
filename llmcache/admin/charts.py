"""Charts as what a template draws: rectangles and labels of an SVG, placed in per cent; and, for
those who do not see it, the same as a table.

In per cent, since then the drawing is as wide as the page allows while its texts keep their size,
and nothing has to be measured by a script or said in a style.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from llmcache.models import CacheEntry
from llmcache.reports import formatting
from llmcache.usage import hits

# Of the room that a column has, so much is left free.
GAP: Final = 0.2
# So many labels fit below a chart on a phone.
MOST_LABELS: Final = 4
# Where the lines across a chart are, in parts of its height.
LINES: Final = (0.0, 0.5, 1.0)
# A chart ends at one of these, times a power of ten: then the half has as few digits.
STEPS: Final = (1, 2, 4, 6, 8, 10)
# Less is nothing: there are numbers that have no power of ten below them.
LEAST: Final = 1e-9
# A chart of hits goes up to two of them at least.
LEAST_HITS: Final = 2


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a column: its kind (a class of the style sheet), its size, and what it says."""

    kind: str
    value: float
    words: str


@dataclass(frozen=True, slots=True)
class Column:
    """What is stacked above one label, from the ground up. `name` says more than the label.

    `cells` are what the table says of it.
    """

    label: str
    name: str
    parts: Sequence[Part]
    cells: Sequence[str] = ()


class Rectangle(NamedTuple):
    """Attributes of an SVG's ``rect``, its class, and its tooltip."""

    x: str
    y: str
    width: str
    height: str
    kind: str
    words: str


class Mark(NamedTuple):
    """A label at a place, and how it is aligned there (SVG's ``text-anchor``)."""

    at: str
    label: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    rectangles: list[Rectangle]
    lines: list[Mark]
    labels: list[Mark]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart on a page. `legend` says what its colours mean, `heads` what is in its table."""

    id: str
    title: str
    chart: Chart
    columns: Sequence[Column]
    heads: Sequence[str]
    legend: Sequence[tuple[str, str]] = ()


def hits_of(entry: CacheEntry) -> Drawing | None:
    """How often an entry was served on each of the last days; None where it was on none."""
    served = hits.of_days(entry.pk) if entry.hits else {}
    if not any(served.values()):
        return None
    columns = []
    for day, times in served.items():
        name, said = date_format(day, "j M"), formatting.count(times)
        columns.append(Column(name, name, [Part("hit", times, said)], [said]))
    chart = stacked(columns, lambda value: formatting.rough(round(value)), least=LEAST_HITS)
    return Drawing("hits", _("Hits over time"), chart, columns, [_("hits")])


def stacked(columns: Sequence[Column], label: Callable[[float], str], *, least: float = 0) -> Chart:
    """A chart of columns, each of stacked parts.

    Args:
        columns: from left to right.
        label: what is written at a line that stands for this value.
        least: the chart ends at this value or above it.
    """
    top = ceiling(max(least, *(sum(part.value for part in each.parts) for each in columns)))
    lines = [Mark(_percent(1 - part), label(part * top), "end") for part in LINES]
    rectangles, room = [], 1 / len(columns)
    for number, column in enumerate(columns):
        below = 0.0
        for part in column.parts:
            if part.value > 0:
                height = part.value / top
                below += height
                rectangles.append(
                    Rectangle(
                        x=_percent((number + GAP / 2) * room),
                        y=_percent(1 - below),
                        width=_percent((1 - GAP) * room),
                        height=_percent(height),
                        kind=part.kind,
                        words=f"{column.name}: {part.words}",
                    )
                )
    return Chart(rectangles, lines, _labels(columns))


def ceiling(value: float) -> float:
    """The next number from `value` up that has few digits, and whose half has; 1 for none."""
    if value < LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))


def _labels(columns: Sequence[Column]) -> list[Mark]:
    """Some labels, as far apart as the others; the first and the last do not stick out."""
    count = len(columns)
    marks = []
    for number in range(0, count, math.ceil(count / MOST_LABELS)):
        middle = (number + 0.5) / count
        at, anchor = middle, "middle"
        if middle < 0.1:
            at, anchor = 0.0, "start"
        elif middle > 0.9:
            at, anchor = 1.0, "end"
        marks.append(Mark(_percent(at), columns[number].label, anchor))
    return marks


def _percent(part: float) -> str:
    return f"{100 * part:.3f}%"
