"""The canonical form of requests: what differs never meets, and what is the same always does."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.utils.datastructures import MultiValueDict
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from llmcache.exceptions import UncacheableRequest
from llmcache.keys.forms import FORMS
from llmcache.keys.request import (
    NUMERIC_PARAMETERS,
    PARTS,
    CanonicalRequest,
    canonical_parameters,
    canonical_part,
    digest,
)
from tests.support.paths import ROOT

# With LLMCACHE_LONG=1: 100,000 pairs, in rounds that each end before a test counts as hanging.
ROUNDS, PAIRS = (100, 1_000) if os.environ.get("LLMCACHE_LONG") else (1, 300)
in_rounds = pytest.mark.parametrize("nth", range(ROUNDS))
pairs = hypothesis_settings(max_examples=PAIRS, deadline=None, derandomize=False)


def form(value: Any) -> bytes:
    return canonical_part("context", value)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Shade(Enum):
    RED = "red"


class Weekday(IntEnum):
    MONDAY = 1


class Role(StrEnum):
    USER = "user"


class Access(Flag):
    READ = 1
    WRITE = 2


Point = namedtuple("Point", "x y")


@dataclass
class Place:
    name: str
    visits: int = 0
    seen: list[int] = field(default_factory=list)


@dataclass
class Spot:
    name: str
    visits: int = 0
    seen: list[int] = field(default_factory=list)


class Document(BaseModel):
    title: str
    pages: int = 1


class Letter(BaseModel):
    title: str
    pages: int = 1


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""
    _draft: bool = PrivateAttr(False)

    @cached_property
    def shout(self) -> str:
        return self.title.upper()


class Text(str):
    pass


def loose(*, draft: bool) -> Loose:
    model = Loose()
    model._draft = draft
    return model


ZURICH = ZoneInfo("Europe/Zurich")
NOON = datetime(2024, 10, 27, 12, 0, tzinfo=UTC)

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


class TestNumericParameters:
    @pytest.mark.parametrize("name", sorted(NUMERIC_PARAMETERS))
    def test_are_compared_as_numbers(self, name: str) -> None:
        assert canonical_parameters({name: 0}) == canonical_parameters({name: 0.0})
        assert canonical_parameters({name: 2}) == canonical_parameters({name: 2.0})
        assert canonical_parameters({name: 10**20}) == canonical_parameters({name: 1e20})

    @pytest.mark.parametrize(
        ("left", "right"),
        [(1, True), (0, False), (1, "1"), (0, None), (0.5, Decimal("0.5")), (0, 0.1), (1, 2)],
    )
    def test_are_not_compared_as_anything_else(self, left: Any, right: Any) -> None:
        assert canonical_parameters({"temperature": left}) != canonical_parameters(
            {"temperature": right}
        )

    @pytest.mark.parametrize("value", [float("inf"), float("-inf")])
    def test_may_be_infinite(self, value: float) -> None:
        assert canonical_parameters({"top_p": value})

    def test_nan_is_refused_with_its_name(self) -> None:
        with pytest.raises(UncacheableRequest) as caught:
            canonical_parameters({"temperature": float("nan")})
        assert caught.value.part == "parameters['temperature']"

    def test_other_parameters_keep_their_type(self) -> None:
        assert canonical_parameters({"made_up": 1}) != canonical_parameters({"made_up": 1.0})

    def test_only_known_names_at_the_top_are_numbers(self) -> None:
        nested = [canonical_parameters({"extra_body": {"temperature": t}}) for t in (0, 0.0)]
        assert nested[0] != nested[1]

    def test_an_unknown_parameter_counts(self) -> None:
        assert canonical_parameters({}) != canonical_parameters({"made_up": None})


def request(**changes: Any) -> CanonicalRequest:
    values = dict.fromkeys(PARTS, "same") | changes
    return CanonicalRequest.of(
        {part: canonical_part(part, value) for part, value in values.items()}
    )


class TestKey:
    def test_is_64_hex_digits(self) -> None:
        assert re.fullmatch("[0-9a-f]{64}", request().key)

    @pytest.mark.parametrize("part", PARTS)
    def test_depends_on_each_part(self, part: str) -> None:
        assert request(**{part: "other"}).key != request().key

    @pytest.mark.parametrize("part", PARTS)
    def test_needs_each_part(self, part: str) -> None:
        parts = {name: b"" for name in PARTS if name != part}
        with pytest.raises(KeyError, match=part):
            _ = CanonicalRequest.of(parts).key

    @pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PARTS, 2)))
    def test_depends_on_which_part_holds_what(self, one: str, other: str) -> None:
        assert request(**{one: "x"}).key != request(**{other: "x"}).key

    @pytest.mark.parametrize(("one", "other"), list(itertools.pairwise(PARTS)))
    def test_content_that_moves_over_the_border_of_parts_changes_it(
        self, one: str, other: str
    ) -> None:
        blank = dict.fromkeys(PARTS, b"")
        keys = {
            CanonicalRequest.of(blank | {one: left, other: right}).key
            for left, right in [
                (b"ab", b""),
                (b"a", b"b"),
                (b"", b"ab"),
                (b"a|", b""),
                (b"a", b"|"),
            ]
        }
        assert len(keys) == 5

    def test_depends_on_the_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = request().key
        monkeypatch.setattr("llmcache.keys.request.VERSION", 0)
        assert request().key != before


class TestDigests:
    def test_there_is_one_for_each_part(self) -> None:
        digests = request().digests()
        assert tuple(digests) == PARTS
        assert digests["model"] == digest(canonical_part("model", "same")).hex()

    @pytest.mark.parametrize("part", PARTS)
    def test_only_that_of_the_changed_part_differs(self, part: str) -> None:
        one, other = request().digests(), request(**{part: "other"}).digests()
        assert [name for name in PARTS if one[name] != other[name]] == [part]


# The names of classes count in the key: these keep theirs, whichever file they are in.
for named in (Colour, Point, Place, Document, Loose):
    named.__module__ = "tests.test_keys"


def fixed_request() -> CanonicalRequest:
    """One request with most of the forms in it."""
    context = {
        "words": {"alpha", "beta", "gamma", "delta"},
        1: {"1": frozenset({1, "1", 2.5, None})},
        "kinds": [True, 1, 1.0, -0.0, b"\x00\xff", bytearray(b"x"), ("t",), Decimal("1.10")],
        "moments": [NOON, NOON.astimezone(ZURICH), date(2024, 2, 29), time(1, 2), timedelta(1.5)],
        "things": [UUID(int=7), PurePosixPath("/a/b"), Colour.RED, Fraction(1, 3), complex(1, 2)],
        "objects": [Place("a", 2, [3]), Document(title="t"), Loose(z=1, a=2), Point(1, 2)],
    }
    parts = {
        "namespace": "default",
        "provider": "openai",
        "endpoint": "base_url=https://api.example.com/v1/",
        "model": "small",
        "mode": "tool_call",
        "schema": {"title": "Document", "type": "object", "properties": {}},
        "messages": [{"role": "user", "content": "Grüße, 世界 \U0001f44b"}],
        "context": context,
        "strict": True,
    }
    canonical = {name: canonical_part(name, value) for name, value in parts.items()}
    parameters = canonical_parameters({"temperature": 0.0, "max_tokens": 100, "stop": ["a"]})
    return CanonicalRequest.of(canonical | {"parameters": parameters})


GOLDEN = "ad12966541bde9aba65fa694b9d751fcf3ad196f902b98bfcbf81c9f7e969a79"


def test_the_key_of_a_fixed_request_never_changes() -> None:
    """When it does, every stored entry is lost: raise `VERSION`, and say so in the changelog."""
    assert fixed_request().key == GOLDEN


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_the_key_is_the_same_in_every_process(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from tests.keys.test_request import *; print(fixed_request().key)"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == GOLDEN, done.stderr


# Few and similar values, so that pairs are often nearly or wholly the same.
LEAVES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, "", "1", "0", "N;", "i1x;", b"", b"1"]
    ),
    st.sampled_from([Colour.RED, Role.USER, "user", UUID(int=1), Decimal("1.0"), Decimal(1)]),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None), max_size=5),
    st.binary(max_size=5),
)
KEYS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.sets(KEYS, max_size=3),
        st.builds(Place, LEAVES, LEAVES, inner),
    ),
    max_leaves=8,
)


def identity(value: Any) -> Hashable:
    """What `value` is, said in another way than by its form."""
    if isinstance(value, dict):
        return dict, frozenset((identity(k), identity(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return set, frozenset(map(identity, value))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(identity, value))
    if isinstance(value, Place):
        return Place, tuple(map(identity, (value.name, value.visits, value.seen)))
    return type(value), repr(value)


def variants(value: Any) -> Iterator[Any]:
    """Values that are nearly `value`."""
    yield from ([value], (value,), {"k": value}, str(value))
    if isinstance(value, list):
        yield from (tuple(value), [value, *value], value[1:], [*value, None], value[::-1])
    if isinstance(value, dict):
        yield from (list(value.items()), {str(k): v for k, v in value.items()}, list(value))
        yield {k: [v] for k, v in value.items()}
    if isinstance(value, bool | int | float):
        yield from (int(value) if abs(value) < 1e300 else 0, bool(value), -value)
    if isinstance(value, str):
        yield from (value.encode("utf-8", "surrogatepass"), value + " ", value.upper(), Text(value))


PAIR = st.tuples(VALUES, VALUES) | VALUES.flatmap(
    lambda value: st.tuples(st.just(value), st.sampled_from(list(variants(value))))
)


@in_rounds
@pairs
@given(pair=PAIR)
@example(pair=({1: "x"}, {"1": "x"}))
@example(pair=([1, [2]], [[1], 2]))
def test_two_values_share_a_form_only_if_they_are_the_same(nth: int, pair: tuple[Any, Any]) -> None:
    left, right = pair
    assert (form(left) == form(right)) == (identity(left) == identity(right))


def built_anew(value: Any, chance: random.Random) -> Any:
    """`value` once more, its mappings and sets filled in another order."""
    if isinstance(value, dict):
        items = [(built_anew(k, chance), built_anew(v, chance)) for k, v in value.items()]
        return dict(chance.sample(items, len(items)))
    if isinstance(value, set | frozenset):
        members = [built_anew(member, chance) for member in value]
        return type(value)(chance.sample(members, len(members)))
    if isinstance(value, list | tuple):
        return type(value)(built_anew(member, chance) for member in value)
    if isinstance(value, Place):
        return Place(value.name, value.visits, built_anew(value.seen, chance))
    return value


@in_rounds
@pairs
@given(value=VALUES, chance=st.randoms(use_true_random=False))
def test_a_value_built_in_another_order_has_the_same_form(
    nth: int, value: Any, chance: random.Random
) -> None:
    assert form(built_anew(value, chance)) == form(value)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*PARTS, *PARTS]), st.binary(max_size=4)), st.data())
def test_two_requests_share_a_key_only_if_all_parts_are_the_same(
    changes: dict[str, bytes], data: st.DataObject
) -> None:
    left = dict.fromkeys(PARTS, b"") | changes
    values = data.draw(st.permutations(list(left.values())))
    right = dict(zip(PARTS, values, strict=True))
    same = CanonicalRequest.of(left).key == CanonicalRequest.of(right).key
    assert same == (left == right)
