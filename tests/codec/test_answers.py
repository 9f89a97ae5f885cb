"""Answers to bytes and back: the same answer, or none."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from functools import partial
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationError,
    computed_field,
    field_validator,
)

from llmcache.codec import answers
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.envelope import ANSWER, seal, unseal
from llmcache.codec.equality import same
from llmcache.exceptions import CorruptEntry
from tests.support.codec import (
    CHAT,
    KEY,
    LIVE,
    NAN,
    Alike,
    Liar,
    Loose,
    Place,
    Usage,
    quick,
)

# Answers


class Kind(Enum):
    BUG = "bug"
    WISH = "wish"


class Level(StrEnum):
    HIGH = "high"


class Line(BaseModel):
    text: str
    price: Decimal


class Aliased(BaseModel):
    number: int = Field(alias="theNumber")


class AliasedTwice(BaseModel):
    number: int = Field(validation_alias="in", serialization_alias="in")


class Renamed(BaseModel):
    a: int = Field(0, validation_alias="in", serialization_alias="out")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(0, alias="theNumber")


class Defaults(BaseModel):
    title: str
    priority: int = 3
    tags: list[str] = Field(default_factory=list)
    note: str | None = None


class Everything(BaseModel):
    lines: list[Line]
    by_name: dict[str, Line]
    by_number: dict[int, str]
    kind: Kind
    level: Level
    at: datetime
    day: date
    for_: timedelta
    id: UUID
    pair: tuple[int, str]
    either: int | str | bool
    literal: Literal["a", 1]
    numbers: set[int]
    raw: bytes
    place: Place
    url: AnyUrl
    anything: Any = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    title: str


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Rigid(BaseModel):
    title: str

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("nothing may be set")


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Numbers(RootModel[list[int]]):
    pass


class Slotted(BaseModel):
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)
    title: str


EVERYTHING = Everything(
    lines=[Line(text="a", price=Decimal("1.10"))],
    by_name={
        "z": Line(text="b", price=Decimal("0.00")),
        "a": Line(text="c", price=Decimal(100)),
    },
    by_number={1: "a", -2: "b"},
    kind=Kind.WISH,
    level=Level.HIGH,
    at=datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    day=date(2024, 2, 29),
    for_=timedelta(days=1, microseconds=1),
    id=UUID(int=7),
    pair=(1, "x"),
    either="1",
    literal=1,
    numbers={3, 1},
    raw=b"abc",
    place=Place("here", 2),
    url=AnyUrl("https://example.com/ü?q=1"),
    anything={"a": [1, 2.5, None, True, "x"]},
)

# As an answer comes about: from JSON.
EVERYTHING = Everything.model_validate_json(EVERYTHING.model_dump_json())


def reader(cls: type[BaseModel], **kwargs: Any) -> Any:
    return partial(cls.model_validate_json, **kwargs)


def from_store(answer: BaseModel, **kwargs: Any) -> BaseModel:
    """`answer` through all that stands between `create` and a hit."""
    read = reader(type(answer), **kwargs)
    data = seal(ANSWER, KEY, encode(answer, read).pack(), created=0)
    restored: BaseModel = answers.decode(StoredAnswer.unpack(unseal(ANSWER, KEY, data).body), read)
    return restored


def encode(answer: BaseModel, read: Any) -> StoredAnswer:
    return answers.encode(answer, answer.model_dump_json, read)


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize(
    "answer",
    [
        Aliased.model_validate({"theNumber": 7}),
        AliasedTwice.model_validate({"in": 7}),
        Renamed.model_validate({"in": 7}),
        ByName.model_validate({"number": 7}),
        Defaults(title="a"),
        Defaults(title="a", priority=3),
        Defaults(title="a", note=None),
        Defaults(title="\U0001f600 ünï\0code \u2028", note=""),
        EVERYTHING,
        Frozen(title="a"),
        Computed(width=3),
        Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])]),
        Loose(title="a", more={"x": [1]}),
        Numbers([3, 1, 2]),
        Slotted(title="a"),
        Liar(value=1),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_an_answer_comes_back_the_same(answer: BaseModel, strict: bool | None) -> None:
    hit = from_store(answer, strict=strict)
    assert same(hit, answer)
    assert hit.model_fields_set == answer.model_fields_set
    assert hit.model_dump_json(by_alias=True) == answer.model_dump_json(by_alias=True)


@quick
@given(st.builds(Defaults, note=st.none() | st.text()) | st.builds(Loose, more=st.floats()))
def test_an_answer_comes_back_the_same_or_not_at_all(answer: BaseModel) -> None:
    try:
        assert same(from_store(answer), answer)
    except NotReproducible:
        assert not all(map(math.isfinite, (answer.model_extra or {}).values()))


def attach(answer: BaseModel, **attributes: Any) -> BaseModel:
    for name, value in attributes.items():
        object.__setattr__(answer, name, value)
    return answer


@pytest.mark.parametrize("cls", [Defaults, Frozen, Rigid, Loose, Slotted])
def test_the_completion_and_the_usage_come_back_with_the_answer(cls: Any) -> None:
    usage = Usage(tokenCount=7)
    hit: Any = from_store(
        attach(cls(title="a"), _raw_response=LIVE["openai"](), _total_usage=usage)
    )
    assert isinstance(hit._raw_response, ChatCompletion)
    assert hit._raw_response == LIVE["openai"]()
    assert hit._total_usage == usage
    assert type(hit._total_usage) is Usage


def test_an_answer_without_completion_has_none() -> None:
    assert not hasattr(from_store(Defaults(title="a")), "_raw_response")


def test_the_context_reaches_the_validators() -> None:
    class Quoted(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def _is_in_the_source(cls, text: str, info: Any) -> str:
            if text not in info.context["source"]:
                raise ValueError("not a quotation")
            return text

    answer = Quoted.model_validate({"text": "b"}, context={"source": "abc"})
    stored = encode(answer, reader(Quoted, context={"source": "abc"}))
    with pytest.raises(ValidationError, match="not a quotation"):
        answers.decode(stored, reader(Quoted, context={"source": "xyz"}))


class TimesTen(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _times_ten(cls, a: int) -> int:
        return a * 10


class Picky(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _small(cls, a: int) -> int:
        if a >= 10:
            raise ValueError("too large")
        return a + 9


class Hiding(BaseModel):
    title: str
    hidden: str = Field("", exclude=True)


class Secret(BaseModel):
    token: SecretStr


class Identified(BaseModel):
    title: str
    id: UUID = Field(default_factory=uuid4)


class Blob(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    blob: Any = None


def with_private(title: str) -> Slotted:
    answer = Slotted(title=title)
    answer._cache["a"] = 1
    return answer


NOT_REPRODUCIBLE: dict[str, tuple[BaseModel, str]] = {
    "validator that is not idempotent": (TimesTen(a=1), "would come back different"),
    "validator that refuses its result": (Picky(a=1), "its own JSON does not validate"),
    "excluded field that was set": (Hiding(title="a", hidden="b"), "would come back different"),
    "secret": (Secret(token=SecretStr("hunter2")), "would come back different"),
    "private attribute that was set": (with_private("a"), "would come back different"),
    "id that the model did not give": (Identified(title="a"), "would come back different"),
    "NaN": (Loose(more=NAN), "would come back different"),
    "type that JSON lacks": (Blob(blob=(1, 2)), "would come back different"),
    "set": (Blob(blob={1}), "would come back different"),
    "object": (Blob(blob=object()), "has no JSON form"),
    "lone surrogate": (Defaults(title="\ud800"), "has no JSON form"),
    "other class": (Blob(blob=Line(text="a", price=Decimal(1))), "would come back different"),
    "completion that is no model": (
        attach(Defaults(title="a"), _raw_response=[1]),
        "the completion is a list",
    ),
}


@pytest.mark.parametrize(("answer", "why"), NOT_REPRODUCIBLE.values(), ids=NOT_REPRODUCIBLE.keys())
def test_an_answer_that_would_come_back_different_is_refused(answer: BaseModel, why: str) -> None:
    with pytest.raises(NotReproducible, match=why):
        encode(answer, reader(type(answer)))


@pytest.mark.parametrize(
    "answer", [Hiding(title="a"), Identified(title="a", id=UUID(int=1))], ids=repr
)
def test_what_was_not_used_of_it_does_no_harm(answer: BaseModel) -> None:
    assert same(from_store(answer), answer)


def test_an_answer_of_another_class_is_refused() -> None:
    with pytest.raises(NotReproducible):
        encode(Alike(title="a"), reader(Loose))


def test_an_entry_that_does_not_validate_any_more_says_so() -> None:
    stored = encode(Loose(more=1), reader(Loose))
    with pytest.raises(ValidationError):
        answers.decode(stored, reader(Line))


def test_nothing_at_rest_is_pickled() -> None:
    stored = encode(attach(Defaults(title="a"), _raw_response=LIVE["openai"]()), reader(Defaults))
    assert json.loads(stored.answer) == {"title": "a"}
    assert stored.completion is not None
    assert json.loads(stored.completion.data) == CHAT


DUMPED = st.none() | st.builds(Dumped, st.text(min_size=1), st.binary())

STORED = st.builds(
    StoredAnswer, st.binary(), DUMPED, DUMPED, st.booleans(), st.binary(), st.binary(max_size=30)
)


class TestPacking:
    @quick
    @given(STORED)
    def test_gives_back_what_was_packed(self, stored: StoredAnswer) -> None:
        assert StoredAnswer.unpack(stored.pack()) == stored

    @quick
    @given(st.lists(st.integers(0, 6), min_size=7, max_size=7), st.binary(max_size=30))
    def test_nothing_but_corrupt_entry_is_raised(self, lengths: list[int], rest: bytes) -> None:
        for body in (rest, struct.pack("!?7I", False, *lengths) + rest):
            with contextlib.suppress(CorruptEntry):
                assert isinstance(StoredAnswer.unpack(body), StoredAnswer)

    @quick
    @given(STORED, st.data())
    def test_a_body_of_another_length_is_refused(
        self, stored: StoredAnswer, data: st.DataObject
    ) -> None:
        body = stored.pack()
        cut = data.draw(st.integers(0, len(body) - 1))
        for damaged in (body[:cut], body + b"x"):
            with pytest.raises(CorruptEntry):
                StoredAnswer.unpack(damaged)

    def test_a_class_name_that_is_no_text_is_refused(self) -> None:
        body = struct.pack("!?7I", False, 2, 0, 1, 2, 0, 0, 0) + b"{}" + b"\xff" + b"{}"
        with pytest.raises(CorruptEntry):
            StoredAnswer.unpack(body)
