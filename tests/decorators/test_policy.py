"""What a decorated function asks of the cache: policy, tags, operations."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Annotated, Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from pydantic import AfterValidator

import llmcache
from llmcache.store.rows import tier as durable
from tests.support.decorated import (
    Extractor,
    aextract,
    anything,
    asked,
    aspell,
    extract,
    note,
    outcomes,
    spell,
    told,
)
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


class TestPolicy:
    def test_override_wins(self) -> None:
        with llmcache.override(namespace="tenant:7", tags=["import"]):
            extract(1)
            in_tenant = extract.key(1)
        extract(1)
        assert len(asked) == 2
        assert extract.key(1) != in_tenant
        row: Any = durable.entries().get(key=in_tenant)
        assert row.namespace == "tenant:7"
        assert [tag.tag for tag in row.tags.all()] == ["import"]

    def test_modes(self) -> None:
        with llmcache.override(mode="only-if-cached"), pytest.raises(llmcache.CacheMiss):
            extract(1)
        extract(1)
        with llmcache.override(mode="only-if-cached"):
            extract(1)
        with llmcache.override(mode="no-store"):
            extract(1)
        with llmcache.override(mode="reload"):
            extract(1)
        assert len(asked) == 3

    def test_ttl_namespace_and_tags(self) -> None:
        @llmcache.cached(ttl=timedelta(hours=1), namespace="support", tags=["a", "b"])
        def ask() -> int:
            return 1

        ask()
        row: Any = durable.entries().get()
        assert row.expires_at - row.created_at < timedelta(hours=1, seconds=10)
        assert row.namespace == "support"
        assert {tag.tag for tag in row.tags.all()} == {"a", "b"}

    def test_a_ttl_of_zero_stores_nothing(self) -> None:
        with llmcache.capture() as calls, llmcache.override(ttl=0):
            extract(1)
        assert told(calls) == [("miss", "cache_ttl is 0")]

    def test_the_settings_are_read_at_each_call(self, settings: Any) -> None:
        extract(1)
        settings.LLMCACHE = settings.LLMCACHE | {"NAMESPACE": "other"}
        extract(1)
        assert len(asked) == 2

    def test_settings_that_are_off_are_a_bypass(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"NAMESPACE": ""}
        with llmcache.capture() as calls:
            assert extract(1).title == "1 fire 1"
        assert outcomes(calls) == ["bypass"]
        assert "NAMESPACE" in calls[0].reason

    def test_a_rollback_of_the_caller_keeps_what_was_paid_for(self, database: str) -> None:
        with transaction.atomic(using=database):
            extract(1)
            transaction.set_rollback(True, using=database)
        for _ in range(100):
            if durable.entries().exists():
                break
            threading.Event().wait(0.05)
        extract(1)
        assert len(asked) == 1

    def test_on_every_database(self, database: str) -> None:
        extract(1)
        extract(1)
        async_to_sync(aextract)(1)
        async_to_sync(aextract)(1)
        assert len(asked) == 2
        assert extract.invalidate(1).entries == 1
        extract(1)
        assert len(asked) == 3

    def test_what_admit_does_not_admit_is_not_stored(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit"}
        with llmcache.capture() as calls:
            extract(1, "poor")
            extract(1, "good")
        assert [call.stored for call in calls] == [False, True]

    def test_admit_is_asked_about_all_items_of_a_generator(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit_items"}
        with llmcache.capture() as calls:
            assert list(spell("poor")) == ["p", "o", "o", "r"]
            assert list(spell("good")) == ["g", "o", "o", "d"]
        assert [call.stored for call in calls] == [False, True]
        assert "ADMIT" in calls[0].reason

    async def test_and_of_an_asynchronous_one(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit_items"}
        with llmcache.capture() as calls:
            for word in ("poor", "good"):
                assert [letter async for letter in aspell(word)] == list(word)
        assert [call.stored for call in calls] == [False, True]


def admit(answer: Any, completion: Any) -> bool:
    return "poor" not in answer.title


def admit_items(answer: Any, completion: Any) -> bool:
    assert completion is None
    return bool(answer != list("poor"))


class TestTags:
    def tags(self) -> set[str]:
        return {tag.tag for row in durable.entries() for tag in row.tags.all()}

    def test_are_made_from_the_arguments_by_name(self) -> None:
        @llmcache.cached(tags=lambda document_id, **rest: [f"doc:{document_id}", str(rest)])
        def ask(text: str, document_id: int, colour: str = "red") -> str:
            note(text)
            return text

        ask("a", 42)
        assert self.tags() == {"doc:42", "{'text': 'a', 'colour': 'red'}"}
        llmcache.invalidate(tags=["doc:42"])
        ask("a", 42)
        assert len(asked) == 2

    def test_need_not_take_all_arguments(self) -> None:
        @llmcache.cached(tags=lambda document_id, prefix="doc": [f"{prefix}:{document_id}"])
        def ask(document_id: int, text: str) -> str:
            return text

        ask(42, "a")
        assert self.tags() == {"doc:42"}

    @pytest.mark.parametrize(
        "tags",
        [lambda number: [""], lambda number: "doc", lambda number: 1 / 0, lambda number: [1]],
    )
    def test_that_fail_take_nothing_away_and_nothing_is_stored_without_them(
        self, tags: Any
    ) -> None:
        @llmcache.cached(tags=tags)
        def ask(number: int) -> int:
            return number

        with llmcache.capture() as calls:
            assert ask(1) == 1
        assert outcomes(calls) == ["miss"]
        assert "its tags could not be told" in calls[0].reason
        assert not durable.entries().exists()

    def test_are_not_made_for_a_hit(self) -> None:
        made: list[int] = []

        def make(number: int) -> list[str]:
            made.append(number)
            return ["a"]

        @llmcache.cached(tags=make)
        def ask(number: int) -> int:
            return number

        ask(1)
        ask(1)
        assert made == [1]


longest = [9]


def not_too_long(text: str) -> str:
    if len(text) > longest[0]:
        raise ValueError("too long")
    return text


@llmcache.cached
def shortened(text: str) -> Annotated[str, AfterValidator(not_too_long)]:
    return text


class TestOperations:
    def test_reload_asks_and_stores(self) -> None:
        extract(1)
        with llmcache.capture() as calls:
            fresh = extract.reload(1)
        assert outcomes(calls) == ["reload"]
        assert fresh.title == "1 fire 2"
        assert extract(1) == fresh
        assert len(asked) == 2

    async def test_reload_of_a_coroutine_function_is_awaited(self) -> None:
        await aextract(1)
        fresh = await aextract.reload(1)
        assert fresh.title == "1 fire 2"
        assert await aextract(1) == fresh

    def test_invalidate_removes_one_entry(self) -> None:
        extract(1)
        extract(2)
        assert extract.invalidate(number=1).entries == 1
        assert extract.invalidate(1).entries == 0
        extract(1)
        extract(2)
        assert len(asked) == 3

    async def test_ainvalidate(self) -> None:
        await aextract(1)
        result = await aextract.ainvalidate(1)
        assert (result.entries, result.pending) == (1, ())

    def test_all_of_a_function_by_its_name(self) -> None:
        extract(1)
        extract(2)
        anything(1)
        name = "tests.support.decorated.extract"
        assert llmcache.invalidate(model=name).entries == 2

    def test_by_the_class_of_its_answers(self) -> None:
        extract(1)
        assert llmcache.invalidate(response_model=Ticket).entries == 1

    def test_explain_says_whether_a_call_would_hit(self) -> None:
        explanation = extract.explain(1)
        assert (explanation.outcome, explanation.tier) == ("miss", None)
        assert explanation.reason == "nothing is stored under this key"
        assert explanation.key == extract.key(1)
        assert explanation.model == "tests.support.decorated.extract"
        extract(1)
        explanation = extract.explain(number=1)
        assert (explanation.outcome, explanation.tier) == ("hit", "durable")
        assert durable.entries().get().hits == 0
        assert len(asked) == 1

    def test_explain_shows_what_sets_a_miss_apart(self) -> None:
        extract(1, "smoke")
        nearest = extract.explain(1, "fire").nearest
        assert nearest is not None
        assert nearest.differing == ("parameters",)
        assert '+  "text": "fire"' in (nearest.differences["parameters"] or "")

    def test_explain_knows_the_object_the_mode_and_the_override(self) -> None:
        Extractor("m").extract("fire")
        assert Extractor("m").extract.explain("fire").outcome == "hit"
        assert Extractor("n").extract.explain("fire").outcome == "miss"
        with llmcache.override(mode="reload"):
            assert Extractor("m").extract.explain("fire").outcome == "reload"
        with llmcache.override(namespace="tenant:7"):
            assert Extractor("m").extract.explain("fire").outcome == "miss"

    def test_explain_says_what_is_passed_by(self) -> None:
        explanation = anything.explain(object())
        assert (explanation.outcome, explanation.key) == ("bypass", "")
        assert "canonical form" in explanation.reason
        with pytest.raises(TypeError):
            extract.explain()  # type: ignore[call-arg]
        assert asked == []

    def test_explain_tells_of_an_entry_that_does_not_validate_any_more(self) -> None:
        shortened("abc")
        assert shortened.explain("abc").outcome == "hit"
        longest[0] = 1
        explanation = shortened.explain("abc")
        longest[0] = 9
        assert explanation.outcome == "miss"
        assert "does not validate any more" in explanation.reason

    async def test_aexplain(self) -> None:
        assert (await aextract.aexplain(1)).outcome == "miss"
        await aextract(1)
        explanation = await aextract.aexplain(1)
        assert (explanation.outcome, explanation.key) == ("hit", aextract.key(1))

    def test_what_has_no_key_cannot_be_invalidated(self) -> None:
        with pytest.raises(llmcache.UncacheableRequest, match="canonical form"):
            anything.invalidate(object())
