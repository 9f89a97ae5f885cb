"""Decorated generators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator

import pytest

import llmcache
from llmcache.store.rows import tier as durable
from tests.support.decorated import asked, aspell, note, outcomes, spell, told, trouble
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


@llmcache.cached
def tickets(count: int) -> Generator[Ticket, None, None]:
    note(count)
    yield from (Ticket(title=str(number)) for number in range(count))


@llmcache.cached
def opened(word: str) -> Iterator[str]:
    note(word)
    return iter(word)


@llmcache.cached
def both_ways(start: int) -> Generator[int, int, str]:
    note(start)
    sent = yield start
    yield sent
    return "end"


class TestGenerators:
    def test_items_pass_while_they_come_and_are_replayed(self) -> None:
        stream = spell("abc")
        assert asked == []
        assert next(stream) == "a"
        assert asked == [("abc",)]
        assert list(stream) == ["b", "c"]
        with llmcache.capture() as calls:
            assert list(spell("abc")) == ["a", "b", "c"]
        assert outcomes(calls) == ["hit"]
        assert asked == [("abc",), "end"]

    async def test_asynchronous_ones_too(self) -> None:
        with llmcache.capture() as calls:
            for _ in range(2):
                assert [letter async for letter in aspell("abc")] == ["a", "b", "c"]
        assert outcomes(calls) == ["miss", "hit"]
        assert asked == [("abc",), "closed"]

    def test_items_are_of_the_annotated_class(self) -> None:
        assert list(tickets(2)) == list(tickets(2)) == [Ticket(title="0"), Ticket(title="1")]
        assert list(tickets(0)) == list(tickets(0)) == []
        assert asked == [(2,), (0,)]

    def test_a_function_that_returns_an_iterator(self) -> None:
        assert list(opened("abc")) == list(opened("abc")) == ["a", "b", "c"]
        assert asked == [("abc",)]

    def test_one_that_stops_early_stores_nothing(self) -> None:
        with llmcache.capture() as calls:
            for letter in spell("abc"):
                assert letter == "a"
                break
        assert told(calls) == [("miss", "the stream was not read to its end")]
        assert not durable.entries().exists()

    async def test_an_asynchronous_one_that_stops_early_is_closed(self) -> None:
        stream = aspell("abc")
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        assert asked == [("abc",), "closed"]

    def test_an_error_comes_after_the_items_before_it(self) -> None:
        stream = spell("abc")
        assert next(stream) == "a"
        trouble.append(ValueError("down"))
        with pytest.raises(ValueError, match="down"):
            next(stream)
        trouble.clear()
        assert list(spell("abc")) == ["a", "b", "c"]

    def test_items_that_the_caller_changes_are_stored_as_they_were(self) -> None:
        for ticket in tickets(1):
            ticket.title = "changed"
        assert list(tickets(1)) == [Ticket(title="0")]

    def test_override_holds_for_what_was_called_inside(self) -> None:
        with llmcache.override(namespace="tenant:7"):
            stream = spell("abc")
        list(stream)
        assert durable.entries().get().namespace == "tenant:7"

    def test_operations(self) -> None:
        list(spell("abc"))
        list(spell.reload("abc"))
        assert asked == [("abc",), "end"] * 2
        assert spell.explain("abc").outcome == "hit"
        assert spell.invalidate("abc").entries == 1

    def test_only_if_cached(self) -> None:
        with llmcache.override(mode="only-if-cached"):
            stream = spell("abc")
        with pytest.raises(llmcache.CacheMiss):
            next(stream)
        assert asked == []

    def test_one_that_is_sent_values_is_handed_on_as_it_is(self) -> None:
        with llmcache.capture() as calls:
            stream = both_ways(1)
            assert next(stream) == 1
            assert stream.send(5) == 5
            with pytest.raises(StopIteration) as end:
                next(stream)
        assert end.value.value == "end"
        assert outcomes(calls) == ["bypass"]
        assert "sent" in calls[0].reason

    def test_other_annotations_are_a_bypass(self) -> None:
        @llmcache.cached
        def untyped():
            yield 1

        @llmcache.cached
        def wrong() -> list[int]:  # type: ignore[misc]
            yield 1

        @llmcache.cached
        def unclear() -> Iterable[int]:
            return [1]

        @llmcache.cached
        def generates() -> Iterable[int]:
            yield 1

        with llmcache.capture() as calls:
            assert [list(each()) for each in (untyped, wrong, unclear, generates)] == [[1]] * 4
            assert list(generates()) == [1]
        assert outcomes(calls) == ["bypass", "bypass", "bypass", "miss", "hit"]

    async def test_a_coroutine_that_returns_a_stream_is_a_bypass(self) -> None:
        @llmcache.cached
        async def ask() -> AsyncIterator[str]:
            return aspell("ab")

        with llmcache.capture() as calls:
            assert [letter async for letter in await ask()] == ["a", "b"]
        assert outcomes(calls) == ["bypass", "miss"]
