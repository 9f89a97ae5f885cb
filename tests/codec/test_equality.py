"""What is the same answer, and what only looks like it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import (
    AnyUrl,
    SecretStr,
)

from llmcache.codec.equality import same
from tests.support.codec import NAN, NOON, Alike, Liar, Loose, Place


@dataclass(eq=False)
class Unequal:
    name: str


def loose(*, draft: bool) -> Loose:
    model = Loose()
    model._draft = draft
    return model


NOON_ELSEWHERE = NOON.astimezone(timezone(timedelta(hours=1)))

NOT_THE_SAME: list[tuple[Any, Any]] = [
    *[(1, True), (1, 1.0), (True, 1.0), (0, False), (1, "1"), (b"a", "a"), (None, 0), (1, 2)],
    *[(0.0, -0.0), (NAN, 1.0), (Decimal("1.0"), Decimal("1.00")), (Decimal(0), Decimal("-0"))],
    *[(NOON, NOON_ELSEWHERE), (NOON, NOON.replace(tzinfo=None)), (NOON.date(), NOON)],
    *[([1], (1,)), ([1], [True]), ([1], [1, 1]), ([], [None]), ("ab", ["a", "b"]), ("a", "b")],
    *[({1: 2}, {True: 2}), ({1: 2}, {1: 2.0}), ({"a": 1}, {}), ({"a": 1}, {"b": 1})],
    *[({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a": 1}, OrderedDict(a=1))],
    *[({1}, {True}), ({1, 9}, {1.0, 9}), ({1}, frozenset({1})), ({1}, {1, 2})],
    *[({0.0}, {-0.0}), ({Decimal("1.0")}, {Decimal("1.00")}), ({NOON}, {NOON_ELSEWHERE})],
    *[({(1,)}, {(True,)}), ({(0.0,)}, {(-0.0,)}), ({frozenset({1})}, {frozenset({1.0})})],
    *[(Liar(value=1), Liar(value=2)), ([Liar(value=1)], [Liar(value=2)])],
    *[(Loose(), Loose(title="")), (Loose(), Alike()), (Loose(a=1), Loose(a=True))],
    *[(Loose(a=1), Loose(b=1)), (loose(draft=True), loose(draft=False))],
    *[(Place("a", 1), Place("a", True)), (Place("a"), Place("b"))],
    (SecretStr("a"), SecretStr("b")),
]


@pytest.mark.parametrize(("left", "right"), NOT_THE_SAME, ids=repr)
def test_what_differs_is_not_the_same(left: Any, right: Any) -> None:
    assert not same(left, right)
    assert not same(right, left)
    assert not same({"in": [left]}, {"in": [right]})


@pytest.mark.parametrize(
    "value",
    [
        *[None, True, 1, 1.5, NAN, float("-inf"), -0.0, "a", b"a", bytearray(b"a"), Decimal("NaN")],
        *[NOON, date(2024, 1, 1), timedelta(1), UUID(int=1), AnyUrl("https://example.com"), (1, 2)],
        *[{1, "a", 2.5, None}, frozenset({(1, "x")}), {"a": {"b": [1, {2}]}}, {1: 1, "1": 2}],
        *[Liar(value=1), Loose(title="a", more=[1]), loose(draft=True), Place("a", [1])],
        Unequal("a"),
    ],
)
def test_a_copy_is_the_same(value: Any) -> None:
    assert same(value, copy.deepcopy(value))


def test_what_instructor_attaches_is_left_out() -> None:
    left, right = Alike(), Alike()
    object.__setattr__(left, "_raw_response", 1)
    object.__setattr__(right, "_total_usage", 2)
    assert same(left, right)
    object.__setattr__(right, "_other", 2)
    assert not same(left, right)
