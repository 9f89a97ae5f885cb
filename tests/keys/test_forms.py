"""The canonical form of values: what differs never meets, and what is the same always does."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import pytest
from django.utils.datastructures import MultiValueDict
from pydantic import BaseModel

from llmcache.exceptions import UncacheableRequest
from llmcache.keys.forms import FORMS
from tests.support.forms import (
    NOON,
    ZURICH,
    Colour,
    Document,
    Loose,
    Place,
    Point,
    Role,
    Text,
    form,
)


class Shade(Enum):
    RED = "red"


class Weekday(IntEnum):
    MONDAY = 1


class Access(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Spot:
    name: str
    visits: int = 0
    seen: list[int] = field(default_factory=list)


class Letter(BaseModel):
    title: str
    pages: int = 1


def loose(*, draft: bool) -> Loose:
    model = Loose()
    model._draft = draft
    return model


# All different: no two of them may share a form. Each line holds what is easily mixed up.
DIFFERENT: list[Any] = [
    *[None, False, True, 0, 1, -1, 1.0, -0.0, 0.0, "1", "", "None", "True", b"", b"1", 10**40],
    *[float("inf"), float("-inf"), 1e40, 0.1, 0.1 + 1e-17 + 2e-17],
    *["a", b"a", bytearray(b"a"), Text("a"), ["a"], ("a",), {"a"}, {"a": None}, [["a"]]],
    *["é", "e\u0301", "е", "e", "\u00e9 ", "ﬁ", "fi", "Å", "\u212b", "A\u030a", "\u200be"],  # noqa: RUF100
    *["\ud800", "\udfff", "?", "\ufffd", "\0", "\0\0"],
    *[[], (), {}, set(), [None], [[]], [{}], [()], ((),), {(): ()}, {None: None}],
    *[["ab"], ["a", "b"], ["a", ["b"]], [["a"], "b"], [["a", "b"]], "a,b", "ab", ["b", "a"]],
    *["s1:a", "N;", "i1x;", "[1:N;", [1, "x"], "k4:s1:a", {"a": "b"}, {"a": {"b": None}}],
    *[{1: "x"}, {"1": "x"}, {True: "x"}, {1.0: "x"}, {b"1": "x"}, {None: "x"}, {(1,): "x"}],
    *[{"a": 1, "b": 2}, {"a": 2, "b": 1}, [("a", 1), ("b", 2)], {"a": {"b": 2}}, {"a", "b"}],
    *[OrderedDict(a=1), defaultdict(int, a=1), {"a": 1}, Point(1, 2), (1, 2), [1, 2], {1, 2}],
    *[{1, "1"}, {1}, {True}, {"1"}, {1.0}, frozenset({(1,)}), {frozenset({1})}],
    *[MultiValueDict({"a": [1, 2]}), MultiValueDict({"a": [3, 2]})],
    *[NOON, NOON.astimezone(ZURICH), NOON.replace(tzinfo=None), NOON.isoformat()],
    *[NOON.replace(tzinfo=timezone(timedelta(0), "GMT")), NOON.timestamp()],
    *[datetime(2024, 10, 27, 2, 30, tzinfo=ZURICH, fold=fold) for fold in (0, 1)],
    *[time(1), time(1, tzinfo=UTC), "01:00:00", date(2024, 10, 27), "2024-10-27"],
    *[timedelta(1), timedelta(seconds=1), timedelta(microseconds=1), timedelta(-1), (1, 0, 0)],
    *[Decimal(1), Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal(0), Decimal("inf")],
    *[Fraction(1), Fraction(1, 2), complex(1), complex(0, 1), Decimal("NaN")],
    *[UUID(int=1), UUID(int=2), str(UUID(int=1)), UUID(int=1).bytes],
    *[PurePosixPath("a"), PureWindowsPath("a"), Path("a"), Path("b")],
    *[Colour.RED, Colour.BLUE, Shade.RED, "red", Weekday.MONDAY, Role.USER, "user"],
    *[Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)],
    *[Place("a"), Place("b"), Place("a", 1), Place("a", seen=[1]), Spot("a")],
    *[Document(title="a"), Document(title="a", pages=2), Letter(title="a"), {"title": "a"}],
    # A provider's SDK sends the fields that were set, and leaves out the others.
    Document(title="a", pages=1),
    *[Document, Letter, "Document", Document.model_json_schema()],
    *[Loose(), Loose(title=""), Loose(more=1), Loose(more="1"), loose(draft=True)],
]


def test_values_that_differ_never_share_a_form() -> None:
    forms: dict[bytes, Any] = {}
    for value in DIFFERENT:
        other = forms.setdefault(form(value), value)
        assert other is value, f"{value!r} has the form of {other!r}"


def test_the_examples_cover_every_type_that_has_a_form() -> None:
    # (The media of instructor are added by `llmcache.client`, and tested with it.)
    own = {cls for cls in FORMS if not cls.__module__.startswith("instructor")}
    assert own <= {type(value) for value in DIFFERENT} | {frozenset}


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: type(value).__name__)
def test_the_same_value_has_the_same_form(value: Any) -> None:
    assert form(value) == form(value)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="dict"),
        pytest.param({"x": [{"a": 1, "b": 2}]}, {"x": [{"b": 2, "a": 1}]}, id="nested dict"),
        pytest.param({1: "x", "1": "y"}, {"1": "y", 1: "x"}, id="keys of several types"),
        pytest.param({8, 0}, {0, 8}, id="set"),  # they collide, so they are iterated differently
        pytest.param({1, "a", None, (2,)}, {(2,), None, "a", 1}, id="set of several types"),
        pytest.param({1, 2}, frozenset({2, 1}), id="frozenset"),
        pytest.param(Document(title="a", pages=2), Document(pages=2, title="a"), id="model"),
        pytest.param(Loose(a=1, b=2), Loose(b=2, a=1), id="extras"),
        pytest.param(Place("a", 1), Place(visits=1, name="a"), id="dataclass"),
        pytest.param(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), id="dict subclass"),
    ],
)
def test_equal_values_share_a_form(left: Any, right: Any) -> None:
    assert form(left) == form(right)


def test_what_a_model_has_worked_out_does_not_count() -> None:
    fresh, as_read = Loose(title="a"), Loose(title="a")
    assert as_read.shout == "A"
    assert form(fresh) == form(as_read)


def test_what_instructor_hangs_on_an_answer_does_not_count() -> None:
    answer = Document(title="a")
    object.__setattr__(answer, "_raw_response", object())
    assert form(answer) == form(Document(title="a"))


def test_two_classes_of_one_name_never_share_a_form() -> None:
    """As after a deploy that made something else of a class, or for classes in functions."""
    text = type("Twin", (str,), {"__module__": "m"})
    enum: Callable[..., Any] = Enum
    left = [enum("Twin", {"a": 1}, module="m").a, text("b"), 1]
    right = [text("a"), 1, enum("Twin", {"b": 1}, module="m").b]
    assert form(left) != form(right)


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


def _in_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        (Opaque(), "context", "has no canonical form"),
        ([1, Opaque()], "context[1]", "has no canonical form"),
        ({"a": [0, Opaque()]}, "context['a'][1]", f"{__name__}.Opaque has no canonical form"),
        ({"a": {2: (Opaque(),)}}, "context['a'][2][0]", "has no canonical form"),
        ({Opaque(): 1}, "context[<opaque>]", "has no canonical form"),
        ({Opaque()}, "context", "has no canonical form"),
        (Place("a", seen=[Opaque()]), "context['seen'][0]", "has no canonical form"),  # type: ignore[list-item]
        (Loose(more=[Opaque()]), "context['more'][0]", "has no canonical form"),
        (float("nan"), "context", "NaN"),
        ({"a": (1, float("nan"))}, "context['a'][1]", "NaN"),
        (lambda: None, "context", "function has no canonical form"),
        (Opaque, "context", "type has no canonical form"),
        (Place, "context", "type has no canonical form"),
        (iter([]), "context", "has no canonical form"),
    ],
    ids=repr,
)
def test_what_has_no_form_is_refused_with_its_place(value: Any, place: str, why: str) -> None:
    with pytest.raises(UncacheableRequest) as caught:
        form(value)
    assert caught.value.part == place
    assert why in caught.value.why
    assert str(caught.value) == f"{place}: {caught.value.why}"


@pytest.mark.parametrize("build", [_in_itself, lambda: _nested(100_000)])
def test_what_has_no_end_is_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(UncacheableRequest, match="nested too deeply, or in itself"):
        form(build())


def test_a_class_without_a_schema_is_refused() -> None:
    class Callback(BaseModel):
        call: Callable[[], None]

    with pytest.raises(UncacheableRequest, match="CallableSchema") as caught:
        form({"tools": [Callback]})
    assert caught.value.part == "context['tools'][0]"
