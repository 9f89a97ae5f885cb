"""Annotations of what a decorated function returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel

if TYPE_CHECKING:
    from somewhere import Nothing  # type: ignore[import-not-found]
import logging

import pytest

import llmcache
from llmcache.store.rows import tier as durable
from tests.support.decorated import asked, note, outcomes, told, unresolved, untyped

pytestmark = pytest.mark.django_db(transaction=True)


@llmcache.cached
def half_resolved(number: Nothing) -> int:
    note(number)
    return 1


@llmcache.cached
def unvalidated(number: int) -> Callable[[], int]:
    note(number)
    return lambda: number


@llmcache.cached
def quoted(number: int) -> list[Later]:
    note(number)
    return [Later(number=number)]


class Later(BaseModel):
    number: int


@llmcache.cached
def annotated(number: int) -> Annotated[int, AfterValidator(abs)]:
    note(number)
    return number


class TestAnnotations:
    @pytest.mark.parametrize(
        ("function", "why"),
        [
            (untyped, "there is no annotation"),
            (unresolved, "'Nothing' cannot be resolved"),
            (unvalidated, "cannot validate"),
        ],
    )
    def test_without_one_the_function_is_called(
        self, function: Any, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with llmcache.capture() as calls, caplog.at_level(logging.WARNING, "llmcache"):
            function(1)
            function(1)
        assert len(asked) == 2
        assert outcomes(calls) == ["bypass"] * 2
        assert calls[0].reason_code == "return-type"
        assert why in calls[0].reason
        assert not durable.entries().exists()
        with pytest.raises(llmcache.UncacheableRequest, match=why):
            function.key(1)

    def test_those_of_the_arguments_need_not_be_resolved(self) -> None:
        assert half_resolved(1) == half_resolved(1)
        assert len(asked) == 1

    def test_one_may_name_what_is_defined_later(self) -> None:
        assert quoted(1) == quoted(1) == [Later(number=1)]
        assert len(asked) == 1
        assert durable.entries().get().response_model == f"list[{__name__}.Later]"

    def test_one_may_have_metadata(self) -> None:
        assert annotated(1) == annotated(1) == 1
        assert len(asked) == 1
        assert durable.entries().get().response_model == "builtins.int"
        # It would come back different.
        with llmcache.capture() as calls:
            assert annotated(-1) == annotated(-1) == -1
        assert [call.stored for call in calls] == [False, False]

    def test_an_answer_of_another_type_is_handed_on_and_not_stored(self) -> None:
        @llmcache.cached
        def wrong() -> int:
            note()
            return "1"  # type: ignore[return-value]

        with llmcache.capture() as calls:
            assert [str(wrong()), type(wrong())] == ["1", str]
        assert (
            told(calls)
            == [("miss", "the answer cannot be stored: it would come back different")] * 2
        )

    def test_a_changed_one_misses(self) -> None:
        def make(annotation: Any) -> Any:
            def changing() -> Any:
                note()
                return 1

            changing.__annotations__["return"] = annotation
            return llmcache.cached(changing)

        class One(BaseModel):
            number: int

        class Other(BaseModel):
            number: int
            more: str = ""

        One.__qualname__ = Other.__qualname__ = "One"
        keys = [make(each).key() for each in (int, str, int | None, list[int], One, Other)]
        assert len(set(keys)) == 6
        assert make(int).key() == keys[0]
