"""Charts as what a template draws: rectangles and labels of an SVG, placed in per cent.

In per cent, since then the drawing is as wide as the page allows while its texts keep their size,
and nothing has to be measured by a script or said in a style.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a column: its kind (a class of the style sheet), its size, and what it says."""

    kind: str
    value: float
    words: str


@dataclass(frozen=True, slots=True)
class Column:
    """What is stacked above one label, from the ground up. `name` says more than the label."""

    label: str
    name: str
    parts: Sequence[Part]

    @property
    def value(self) -> float:
        return sum(part.value for part in self.parts)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Attributes of an SVG's ``rect``, its class, and its tooltip."""

    x: str
    y: str
    width: str
    height: str
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A label at a place, and how it is aligned there (SVG's ``text-anchor``)."""

    at: str
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Chart:
    rectangles: list[Rectangle]
    lines: list[Mark]
    labels: list[Mark]


def stacked(columns: Sequence[Column], label: Callable[[float], str], *, least: float = 0) -> Chart:
    """A chart of columns, each of stacked parts.

    Args:
        columns: from left to right.
        label: what is written at a line that stands for this value.
        least: the chart ends at this value or above it.
    """
    top = ceiling(max([least, *(column.value for column in columns)]))
    lines = [Mark(_percent(1 - part), label(part * top), "end") for part in LINES]
    rectangles = [
        rectangle
        for number, column in enumerate(columns)
        for rectangle in _stack(column, number, 1 / len(columns), top)
    ]
    return Chart(rectangles, lines, _labels(columns))


def ceiling(value: float) -> float:
    """The next number from `value` up that has few digits, and whose half has; 1 for none."""
    if value < LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))


def _stack(column: Column, number: int, room: float, top: float) -> list[Rectangle]:
    rectangles, below = [], 0.0
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
    return rectangles


def _labels(columns: Sequence[Column]) -> list[Mark]:
    """Some labels, as far apart as the others; the first and the last do not stick out."""
    count = len(columns)
    every = max(1, math.ceil(count / MOST_LABELS))
    marks = []
    for number in range(0, count, every):
        middle = (number + 0.5) / count
        anchor = "start" if middle < 0.1 else "end" if middle > 0.9 else "middle"
        at = {"start": 0.0, "end": 1.0}.get(anchor, middle)
        marks.append(Mark(_percent(at), columns[number].label, anchor))
    return marks


def _percent(part: float) -> str:
    return f"{100 * part:.3f}%"
