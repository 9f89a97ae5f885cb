"""Decorated methods."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import BaseModel

import llmcache
from tests.support.decorated import Extractor, Plain, asked, note, outcomes

pytestmark = pytest.mark.django_db(transaction=True)


class Validated(BaseModel):
    model: str

    @classmethod
    @llmcache.cached
    def named(cls, text: str) -> str:
        note(text)
        return f"{cls.__name__} {text}"

    @llmcache.cached
    def extract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"


def named(cls: type, is_above: bool = False) -> tuple[type, ...]:
    """What `key` and the like are to be given besides: from Python 3.13 on, the class.

    There, a `classmethod` binds no more than the call to the class, and not what is below it.
    """
    return () if is_above or sys.version_info < (3, 13) else (cls,)


class Heir(Plain):
    @llmcache.cached(exclude=["self"])
    def shared(self, text: str) -> str:
        return f"heir of {super().shared(text)}"


class TestMethods:
    @pytest.mark.parametrize("cls", [Extractor, Validated])
    def test_an_object_with_a_canonical_form_counts_by_it(self, cls: Any) -> None:
        one, same, other = cls(model="a"), cls(model="a"), cls(model="b")
        assert one.extract("x") == same.extract(text="x") == "a x"
        assert other.extract("x") == "b x"
        assert len(asked) == 2
        one.model = "c"
        assert one.extract("x") == "c x"

    def test_any_other_object_is_a_bypass(self) -> None:
        with llmcache.capture() as calls:
            assert Plain("a").extract("x") == "a x"
        assert outcomes(calls) == ["bypass"]
        assert "Plain has no canonical form" in calls[0].reason
        assert "exclude=('self',)" in calls[0].reason

    def test_an_object_may_be_excluded(self) -> None:
        assert Plain("a").shared("x") == Plain("b").shared("x") == "x"
        assert len(asked) == 1
        assert Heir("a").shared("x") == Heir("a").shared("x") == "heir of x"

    def test_operations_know_the_object(self) -> None:
        one = Extractor("a")
        one.extract("x")
        assert one.extract.key("x") == Extractor.extract.key(one, "x")
        assert one.extract.reload("x") == "a x"
        assert len(asked) == 2
        assert one.extract.invalidate("x").entries == 1
        assert Extractor.extract(one, "x") == "a x"
        assert len(asked) == 3

    async def test_coroutine_methods(self) -> None:
        one = Extractor("a")
        assert await one.aextract("x") == await one.aextract("x") == "a x"
        assert len(asked) == 1
        assert (await one.aextract.ainvalidate("x")).entries == 1

    @pytest.mark.parametrize("name", ["above", "below"])
    def test_class_methods_count_by_the_name_of_the_class(self, name: str) -> None:
        for cls in (Plain, Plain, Heir):
            assert getattr(cls, name)("x") == f"{cls.__name__} x"
        assert getattr(Plain("a"), name)("x") == "Plain x"
        assert len(asked) == 2
        is_above = name == "above"
        keys = {getattr(cls, name).key(*named(cls, is_above), "x") for cls in (Plain, Heir)}
        assert len(keys) == 2
        assert getattr(Plain, name).invalidate(*named(Plain, is_above), "x").entries == 1

    @pytest.mark.parametrize("name", ["static_above", "static_below"])
    def test_static_methods(self, name: str) -> None:
        assert getattr(Plain, name)("x") == getattr(Plain("a"), name)("x") == "x"
        assert len(asked) == 1
        assert getattr(Plain, name).invalidate("x").entries == 1

    def test_a_class_method_of_a_model_counts_its_schema_too(self) -> None:
        model: Any = Validated
        assert model.named("x") == "Validated x"
        assert model.named("x") == "Validated x"
        assert len(asked) == 1
        before = model.named.key(*named(model), "x")
        model.model_fields["model"].description = "changed"
        model.model_rebuild(force=True)
        try:
            assert model.named.key(*named(model), "x") != before
        finally:
            model.model_fields["model"].description = None
            model.model_rebuild(force=True)

    def test_an_argument_may_be_called_as_a_class_is(self) -> None:
        @llmcache.cached
        def ask(cls: str) -> str:
            return cls

        assert ask.key("a") != ask.key("b")

    def test_a_class_without_a_name_of_its_own_is_a_bypass(self) -> None:
        class Local(Plain):
            pass

        with llmcache.capture() as calls:
            Local("a").above("x")
        assert outcomes(calls) == ["bypass"]
        assert "has no name of its own" in calls[0].reason
