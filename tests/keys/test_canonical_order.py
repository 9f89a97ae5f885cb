"""What a template can see of the context counts in the key: the order of mappings, at any depth.

And what only looks like something else: classes that are called like an SDK's, lazy translations.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import anthropic
import openai
import pytest
from django.utils import translation
from django.utils.functional import lazy
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment
from mistralai.client.types.basemodel import Unset
from pydantic import BaseModel, ConfigDict, PrivateAttr

import llmcache
from llmcache.keys.forms import copied
from llmcache.keys.request import canonical_context
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client, outcomes

FORWARDS, BACKWARDS = {"a": 1, "b": 2}, {"b": 2, "a": 1}
Pair = namedtuple("Pair", "left right")


class Box(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    held: Any = None
    _hidden: Any = PrivateAttr(None)


@dataclass
class Record:
    held: Any
    others: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Frozen:
    held: Any


class Text(str):
    pass


class Scale(Enum):
    FORWARDS = FORWARDS


def hidden(value: Any) -> Box:
    box = Box()
    box._hidden = value
    return box


def hung_on(value: Any) -> Text:
    text = Text("text")
    text.held = value  # type: ignore[attr-defined]
    return text


def hung_on_a_record(value: Any) -> Record:
    record = Record(1)
    record.more = value  # type: ignore[attr-defined]
    return record


AROUND: list[Callable[[Any], Any]] = [
    lambda value: value,
    lambda value: [value],
    lambda value: (1, value),
    lambda value: {"inner": value},
    lambda value: OrderedDict(value),
    lambda value: OrderedDict(inner=value),
    lambda value: Pair(1, value),
    lambda value: Box(held=value),
    lambda value: Box.model_validate({"other": value}),
    lambda value: Box.model_construct(**value),
    hidden,
    lambda value: Record(value),
    lambda value: Record(1, [Record(value)]),
    hung_on,
    hung_on_a_record,
    lambda value: {Frozen(value)},
    lambda value: Frozen({Frozen(1): [Frozen(value)]}),
    lambda value: {"a": [Box(held=(Record({"b": Box(held=value)}),))]},
]


@pytest.mark.parametrize("around", AROUND)
def test_the_order_inside_counts_whatever_is_around_it(around: Callable[[Any], Any]) -> None:
    forwards, again, backwards = (around(dict(it)) for it in (FORWARDS, FORWARDS, BACKWARDS))
    assert canonical_context({"it": forwards}) == canonical_context({"it": again})
    assert canonical_context({"it": forwards}) != canonical_context({"it": backwards})


def test_the_order_of_the_context_itself_and_of_a_set_does_not() -> None:
    assert canonical_context(FORWARDS) == canonical_context(BACKWARDS)
    names, backwards = set[str](), set[str]()
    for number in range(50):
        names.add(f"name {number}")
        backwards.add(f"name {49 - number}")
    assert canonical_context({"it": names}) == canonical_context({"it": backwards})


def test_of_a_context_that_is_no_mapping_it_does() -> None:
    forwards, backwards = (canonical_context(Box(held=it)) for it in (FORWARDS, BACKWARDS))
    assert forwards != backwards


def test_classes_have_no_order() -> None:
    assert canonical_context({"it": Box}) == canonical_context({"it": Box})
    assert canonical_context({"it": Scale.FORWARDS}) == canonical_context({"it": Scale.FORWARDS})


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(Record, inner)
        | st.builds(lambda held: Box(held=held), inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


def written(value: Any) -> str:
    """All that a template may write of it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value)}[" + ",".join(map(written, value)) + "]"
    if isinstance(value, Record | Box):
        return f"{type(value)}<{written(value.held)}>"
    return repr(value)


def turned(value: Any) -> Any:
    """The same, with all mappings the other way round."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    if isinstance(value, Pair):
        return Pair(*map(turned, value))
    if isinstance(value, list):
        return [turned(item) for item in value]
    if isinstance(value, Record):
        return Record(turned(value.held))
    return Box(held=turned(value.held)) if isinstance(value, Box) else value


@given(values)
@hypothesis_settings(deadline=None)
def test_another_order_is_another_context_where_a_template_writes_another_text(value: Any) -> None:
    other = turned(value)
    same = canonical_context({"it": value}) == canonical_context({"it": other})
    assert same == (written(value) == written(other))


@given(values)
@hypothesis_settings(deadline=None)
def test_a_copy_has_the_same_form_and_nothing_in_common_that_could_change(value: Any) -> None:
    twin = copied(value)
    assert canonical_context({"it": twin}) == canonical_context({"it": value})
    assert written(twin) == written(copy.deepcopy(value))
    for left, right in zip(mutable(value), mutable(twin), strict=True):
        assert left is not right


def mutable(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from mutable(item)
    elif isinstance(value, list | tuple):
        if isinstance(value, list):
            yield value
        for item in value:
            yield from mutable(item)
    elif isinstance(value, Record | Box):
        yield value
        yield from mutable(value.held)


@pytest.mark.django_db(transaction=True)
class TestCalls:
    def test_a_template_that_goes_through_a_model_is_asked_for_each_order(
        self, model: StandIn
    ) -> None:
        template = "{% for name, value in box.held.items() %}{{ name }}={{ value }} {% endfor %}"
        messages = [{"role": "user", "content": template}]
        client = make_client(model)
        with llmcache.capture() as calls:
            for order in (FORWARDS, BACKWARDS, FORWARDS):
                context = {"box": Box(held=order)}
                client.create(**CALL | {"messages": messages}, context=context)
        assert [str(call.outcome) for call in calls] == ["miss", "miss", "hit"]
        assert SandboxedEnvironment().from_string(template).render(box=Box(held=FORWARDS)) in str(
            model.calls[0].body
        )

    def test_an_argument_of_a_function_too(self) -> None:
        @llmcache.cached
        def names(box: Box) -> list[str]:
            return list(box.held)

        assert names(Box(held=FORWARDS)) == ["a", "b"]
        assert names(Box(held=BACKWARDS)) == ["b", "a"]

    @pytest.mark.parametrize(
        "mark", [openai.NOT_GIVEN, openai.omit, anthropic.NOT_GIVEN, anthropic.omit, Unset()]
    )
    def test_a_mark_of_an_sdk_is_not_sent_and_does_not_count(
        self, model: StandIn, mark: Any
    ) -> None:
        client = make_client(model)
        assert llmcache.key_for(client, **CALL, stop=mark) == llmcache.key_for(client, **CALL)

    @pytest.mark.parametrize("name", ["Omit", "NotGiven", "Unset"])
    def test_a_class_of_ones_own_with_such_a_name_counts(self, model: StandIn, name: str) -> None:
        made = type(name, (BaseModel,), {"__annotations__": {"value": int}, "__module__": "app"})
        client = make_client(model)

        def key(value: Any) -> str:
            return llmcache.key_for(client, **CALL, metadata=value)

        assert len({key(made(value=1)), key(made(value=2)), llmcache.key_for(client, **CALL)}) == 3
        unformed = type(name, (), {"__module__": "app"})()
        with pytest.raises(llmcache.UncacheableRequest, match=f"app.{name}"):
            key(unformed)


@pytest.mark.django_db(transaction=True)
class TestLazyTranslations:
    # (Django's own catalogue has it)
    LAZY = gettext_lazy("Monday")

    def call(self) -> dict[str, Any]:
        return CALL | {"messages": [{"role": "user", "content": self.LAZY}]}

    def test_count_as_their_text_and_are_sent_as_that(self, model: StandIn) -> None:
        client = make_client(model)
        plain = CALL | {"messages": [{"role": "user", "content": "Monday"}]}
        with llmcache.capture() as calls:
            client.create(**self.call())
            client.create(**plain)
            client.create(**self.call(), cache_mode="no-store")
            client.create(**self.call(), context={"unknown": lambda: 0})
        assert outcomes(calls) == [
            ("miss", None),
            ("hit", "durable"),
            ("bypass", None),
            ("bypass", None),
        ]
        assert all('"Monday"' in json.dumps(call.body) for call in model.calls)

    def test_in_the_language_that_is_active_at_the_call(self, model: StandIn) -> None:
        client = make_client(model)
        with llmcache.capture() as calls:
            for language in ("en", "de", "en"):
                with translation.override(language):
                    client.create(**self.call())
        assert [str(call.outcome) for call in calls] == ["miss", "miss", "hit"]
        assert "Montag" in str(model.calls[1].body)

    def test_of_many_that_are_asked_on_other_threads(self, model: StandIn) -> None:
        with translation.override("de"):
            [result] = llmcache.create_many(make_client(model), [self.call()])
        assert result.call.stored
        assert "Montag" in str(model.calls[0].body)

    def test_in_a_context_as_well(self, model: StandIn) -> None:
        client = make_client(model)
        keys = []
        for language in ("en", "de"):
            with translation.override(language):
                keys.append(llmcache.key_for(client, **CALL, context={"day": [self.LAZY]}))
        assert keys[0] == llmcache.key_for(client, **CALL, context={"day": ["Monday"]}) != keys[1]

    def test_what_is_lazy_and_no_text_has_no_form(self, model: StandIn) -> None:
        with pytest.raises(llmcache.UncacheableRequest, match="a lazy value that is no text"):
            llmcache.key_for(make_client(model), **CALL, seed=lazy(lambda: 1, int)())
