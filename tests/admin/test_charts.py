"""Charts: where their rectangles and labels are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache.admin import charts
from llmcache.admin.charts import MOST_LABELS, Column, Part, stacked

value = st.floats(0, 1e12) | st.integers(0, 10**6)
columns = st.lists(st.lists(value, max_size=4), min_size=1, max_size=60)


def chart_of(values: list[list[float]], **more: float) -> charts.Chart:
    made = [
        Column(f"l{number}", f"n{number}", [Part("kind", each, f"{each}") for each in parts])
        for number, parts in enumerate(values)
    ]
    return stacked(made, str, **more)


def number(percent: str) -> float:
    assert percent.endswith("%")
    return float(percent[:-1])


@given(columns)
def test_all_is_inside_and_nothing_overlaps(values: list[list[float]]) -> None:
    chart = chart_of(values)
    ends: dict[str, float] = {}
    for rectangle in chart.rectangles:
        x, width = number(rectangle.x), number(rectangle.width)
        top, height = number(rectangle.y), number(rectangle.height)
        assert -0.01 <= x <= x + width <= 100.01
        assert -0.01 <= top <= top + height <= 100.01
        # Each stands on the one below it.
        assert top + height == pytest.approx(ends.get(rectangle.x, 100), abs=0.01)
        ends[rectangle.x] = top
    assert len(chart.rectangles) == sum(each > 0 for parts in values for each in parts)
    assert 1 <= len(chart.labels) <= MOST_LABELS
    assert chart.labels[0].label == "l0"


@given(st.floats(1e-9, 1e15))
def test_the_ceiling_is_near_and_has_few_digits(top: float) -> None:
    found = charts.ceiling(top)
    assert top * (1 - 1e-6) <= found <= 2.001 * top
    assert len(f"{found / 2:.3g}".replace(".", "").strip("0").partition("e")[0]) <= 1


def test_heights_are_parts_of_the_top_line() -> None:
    chart = chart_of([[1, 2], [6]])
    assert [line.label for line in chart.lines] == ["0.0", "3.0", "6.0"]
    assert [line.at for line in chart.lines] == ["100.000%", "50.000%", "0.000%"]
    heights = [round(number(each.height) * 6) for each in chart.rectangles]
    assert heights == [100, 200, 600]
    assert chart.rectangles[1].words == "n0: 2"


def test_nothing_has_a_ground_line_and_a_top() -> None:
    chart = chart_of([[0], [0]], least=2)
    assert chart.rectangles == []
    assert [line.label for line in chart.lines] == ["0.0", "1.0", "2.0"]


def test_labels_at_the_ends_do_not_stick_out() -> None:
    chart = chart_of([[1.0]] * 24)
    assert (chart.labels[0].at, chart.labels[0].anchor) == ("0.000%", "start")
    assert [mark.label for mark in chart.labels] == ["l0", "l6", "l12", "l18"]
    assert chart_of([[1.0]] * 2).labels[-1].anchor == "middle"
