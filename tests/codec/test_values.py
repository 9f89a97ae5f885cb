"""Values of any annotation come back as they were, or are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic.errors import PydanticUserError
from typing_extensions import TypedDict

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.equality import same
from llmcache.codec.values import ValueCodec, without_derived_class
from llmcache.exceptions import CorruptEntry
from tests.support.ticket import Ticket


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Box:
    point: Point
    label: str | None = None


class Options(TypedDict, total=False):
    colour: Colour
    size: float


class Aliased(BaseModel):
    number: int = Field(alias="n")
    note: str = ""


class Hidden(BaseModel):
    secret: int = Field(default=0, exclude=True)


class Growing(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def grow(cls, number: int) -> int:
        return number + 1


def back(annotation: Any, value: Any) -> Any:
    """`value` by way of the bytes of an entry."""
    codec = ValueCodec(annotation)
    packed = codec.encode(value).pack()
    return ValueCodec(annotation).decode(StoredAnswer.unpack(packed))


def without_fold(moment: Any) -> Any:
    """Without the mark for the second of two equal hours, which ISO 8601 does not write."""
    return moment.replace(fold=0)


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats()),
    (str, texts),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.none() | st.just(UTC)).map(without_fold)),
    (time, st.times().map(without_fold)),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Point, st.builds(Point, st.integers(), st.integers())),
    (Box, st.builds(Box, st.builds(Point, st.integers(), st.integers()), st.none() | texts)),
    (Options, st.fixed_dictionaries({}, optional={"colour": st.sampled_from(Colour)})),
    (Aliased, st.builds(Aliased, n=st.integers())),
    (Ticket, st.builds(Ticket, title=texts)),
    (Any, st.recursive(st.none() | st.booleans() | st.integers() | texts, st.lists)),
]


def containers(of: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    annotation: Any
    annotation, values = of
    return st.one_of(
        values.map(lambda value: (annotation, value)),
        st.lists(values, max_size=3).map(lambda value: (GenericAlias(list, annotation), value)),
        st.tuples(values).map(lambda value: (GenericAlias(tuple, (annotation,)), value)),
        st.dictionaries(texts, values, max_size=3).map(
            lambda value: (GenericAlias(dict, (str, annotation)), value)
        ),
    )


@settings(deadline=None)
@given(st.sampled_from(scalars).flatmap(containers))
def test_values_come_back_the_same(case: tuple[Any, Any]) -> None:
    annotation, value = case
    assert same(back(annotation, value), value)


@given(st.timedeltas())
def test_durations_come_back_the_same_or_are_refused(value: timedelta) -> None:
    with suppress(NotReproducible):
        assert back(timedelta, value) == value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Ticket | None, None),
        (int | str, "1"),
        (set[int], {1, 2}),
        (frozenset[Colour], frozenset(Colour)),
        (Path, Path("a/b")),
        (SecretStr | None, None),
        (list[float], [math.inf, -0.0, math.nan]),
        (dict[int, str], {1: "a"}),
        (tuple[int, ...], ()),
        (bytes, b"\xff\x00"),
        (datetime, datetime(2026, 11, 5, 12, tzinfo=ZoneInfo("UTC"))),
        (list[Ticket], [Ticket(title="a"), Ticket(title="b", priority=1)]),
    ],
)
def test_more_values_come_back_the_same(annotation: Any, value: Any) -> None:
    assert same(back(annotation, value), value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Ticket, {"title": "a dictionary"}),
        (int, "1"),
        (int, 1.0),
        (float, 1),
        (list[int], (1, 2)),
        (Any, (1, 2)),
        (Any, Ticket(title="a")),
        (BaseModel, Ticket(title="a")),
        (str, "\ud800"),
        (Hidden, Hidden(secret=1)),
        (Growing, Growing(number=1)),
        (SecretStr, SecretStr("s")),
        (object, object()),
        (datetime, datetime(2026, 11, 5, 12, tzinfo=ZoneInfo("Europe/Berlin"))),
    ],
    ids=repr,
)
def test_what_would_come_back_different_is_refused(annotation: Any, value: Any) -> None:
    with pytest.raises(NotReproducible):
        ValueCodec(annotation).encode(value)


def test_unset_fields_stay_unset() -> None:
    restored = back(list[Ticket], [Ticket(title="a")])[0]
    assert restored.model_fields_set == {"title"}


@pytest.mark.parametrize("annotation", ["Nowhere", type(lambda: None), Callable], ids=repr)
def test_an_annotation_that_cannot_be_validated_is_an_error(annotation: Any) -> None:
    with pytest.raises((PydanticUserError, NameError, TypeError)):
        ValueCodec(annotation)


def test_bytes_that_do_not_validate_are_an_error() -> None:
    codec = ValueCodec(list[int])
    for body in (b"", b"[", b'["a"]', b"{}"):
        with pytest.raises(ValueError, match="validation error"):
            codec.decode(StoredAnswer(body))
    with pytest.raises(CorruptEntry):
        StoredAnswer.unpack(b"")


@pytest.mark.parametrize("annotation", [Ticket, list[Ticket], Ticket | None], ids=str)
@pytest.mark.parametrize(
    "response",
    [None, Dumped("builtins:dict", b"{}"), Dumped(f"{__name__}:Aliased", b"{}")],
    ids=str,
)
def test_a_response_in_the_place_of_a_value_is_of_a_class_that_is_returned(
    annotation: Any, response: Dumped | None
) -> None:
    """Whoever can write to the store could hand on another one."""
    planted = StoredAnswer(b"null", response, parsed=True)
    with pytest.raises(CorruptEntry):
        ValueCodec(annotation).decode(planted)


def test_the_schema_tells_annotations_apart() -> None:
    schemas = [str(ValueCodec(each).schema) for each in (int, list[int], Ticket, Aliased, None)]
    assert len(set(schemas)) == 5


COMPLETION = ChatCompletion.model_validate(
    {"id": "1", "choices": [], "created": 1, "model": "m", "object": "chat.completion"}
)


def test_the_completion_of_an_answer_comes_along() -> None:
    answer: Any = Ticket(title="a")
    object.__setattr__(answer, "_raw_response", COMPLETION)
    restored = back(Ticket, answer)
    assert restored.title == "a"
    assert restored._raw_response == COMPLETION
    assert back(Ticket | None, answer)._raw_response == COMPLETION


class TestDerivedClass:
    """instructor answers with a class that it has derived, and called by the same name."""

    @pytest.fixture
    def mixed_in(self) -> Any:
        return type("Mixin", (), {"__module__": "instructor.function_calls"})

    @pytest.fixture
    def derived(self, mixed_in: Any) -> Any:
        names = {"__module__": Ticket.__module__, "__qualname__": Ticket.__qualname__}
        return type("Ticket", (Ticket, mixed_in), names)

    def test_gives_way_to_the_declared_one(self, derived: Any) -> None:
        answer = derived(title="a")
        object.__setattr__(answer, "_raw_response", COMPLETION)
        plain: Any = without_derived_class(answer)
        assert type(plain) is Ticket
        assert (plain.title, plain.priority) == ("a", 3)
        assert plain.model_fields_set == {"title"}
        assert vars(plain)["_raw_response"] is COMPLETION
        assert type(answer) is derived
        plain.title = "b"
        assert answer.title == "a"

    def test_any_other_value_stays(self, mixed_in: Any) -> None:
        other = type("Other", (Ticket, mixed_in), {"__module__": Ticket.__module__})
        own = type("Ticket", (Ticket,), {"__module__": Ticket.__module__})
        values = (None, 1, "a", [1], Ticket, Ticket(title="a"), other(title="a"), own(title="a"))
        for value in values:
            assert without_derived_class(value) is value
