"""The two drivers of streams carry the rules out alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

import pytest

from llmcache.exceptions import CacheMiss
from llmcache.flow.steps import NotStorable, StreamRequest
from llmcache.flow.stream_drivers import adrive_stream, drive_stream
from llmcache.outcomes import Call, capture
from llmcache.reasons import ReasonCode
from llmcache.store.records import Draft, Missing
from tests.support.rules import DRAFT, FRESH, KEY, NO_KEY, FakeEntries, FakeRequest, said, told

ODD = ReasonCode.NOT_REPRODUCIBLE(why="it is odd")

# Streams


class StreamingRequest(FakeRequest):
    """Its items are encoded as `encode` says."""

    def __init__(
        self, mode: str = "default", *, encode: Callable[[Any], Any] = str, **parts: Any
    ) -> None:
        super().__init__(mode, **{"restored": [1, 2, 3]} | parts)
        self.encode = encode
        _: StreamRequest = self

    def encode_item(self, item: Any) -> bytes:
        self.done.append(("encode", item))
        return str(told(self.encode(item))).encode()

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        return super().draft(answer.items(), asked, latency)


class Source:
    """The model's stream; it notes how far it was read, and whether it was closed."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.read = 0
        self.closed = False

    def open(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.read += 1
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed = True

    async def aopen(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(0)
                self.read += 1
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            await asyncio.sleep(0)
            self.closed = True


def read_sync(request: StreamingRequest, source: Source, most: int | None) -> list[Any]:
    stream = drive_stream(request, source.open)
    with closing(stream):
        return list(islice(stream, most))


def read_async(request: StreamingRequest, source: Source, most: int | None) -> list[Any]:
    async def read() -> list[Any]:
        items: list[Any] = []
        async with aclosing(adrive_stream(request, source.aopen)) as stream:
            while most is None or len(items) < most:
                try:
                    items.append(await anext(stream))
                except StopAsyncIteration:
                    break
        return items

    return asyncio.run(read())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeEntries:
    store = FakeEntries(Missing(), None)
    store.take_over(monkeypatch)
    return store


@pytest.mark.parametrize("read", [read_sync, read_async])
class TestStreams:
    def test_items_are_handed_on_and_stored_at_the_end(self, read: Any, store: Any) -> None:
        request, source = StreamingRequest(), Source("a", "b")
        assert read(request, source, None) == ["a", "b"]
        assert store.effects == [("lookup", KEY, False), ("save", DRAFT)]
        assert request.done == [
            "before asking",
            ("encode", "a"),
            ("encode", "b"),
            ("draft", [b"a", b"b"]),
        ]
        assert said(request.call) == ("miss", None, True, "")

    def test_an_empty_stream_is_an_answer(self, read: Any, store: Any) -> None:
        request = StreamingRequest()
        assert read(request, Source(), None) == []
        assert request.done == ["before asking", ("draft", [])]
        assert request.call.stored

    def test_a_hit_replays_the_items_and_asks_nobody(self, read: Any, store: Any) -> None:
        store.found = FRESH
        request, source = StreamingRequest(), Source("a")
        assert read(request, source, None) == [1, 2, 3]
        assert (source.read, source.closed) == (0, False)
        assert said(request.call) == ("hit", "hot", False, "")

    def test_a_hit_need_not_be_read_to_its_end(self, read: Any, store: Any) -> None:
        store.found = FRESH
        request = StreamingRequest()
        assert read(request, Source(), 2) == [1, 2]
        assert said(request.call) == ("hit", "hot", False, "")

    def test_one_that_is_not_read_to_its_end_is_closed_and_not_stored(
        self, read: Any, store: Any
    ) -> None:
        request, source = StreamingRequest(), Source("a", "b", "c")
        with capture() as calls:
            assert read(request, source, 2) == ["a", "b"]
        assert (source.read, source.closed) == (2, True)
        assert store.effects == [("lookup", KEY, False)]
        why = "the stream was not read to its end"
        assert [said(call) for call in calls] == [("miss", None, False, why)]

    def test_nothing_is_done_for_one_that_is_not_read(self, read: Any, store: Any) -> None:
        source = Source("a")
        with capture() as calls:
            assert read(StreamingRequest(), source, 0) == []
        assert (store.effects, calls, source.read) == ([], [], 0)

    def test_the_models_error_goes_through_and_nothing_is_stored(
        self, read: Any, store: Any
    ) -> None:
        error = ConnectionError("down")
        request, source = StreamingRequest(), Source("a", error)
        with pytest.raises(ConnectionError) as caught:
            read(request, source, None)
        assert caught.value is error
        assert source.closed
        assert store.effects == [("lookup", KEY, False)]
        assert said(request.call) == ("miss", None, False, "ConnectionError was raised")

    @pytest.mark.parametrize(
        ("mode", "parts", "why"),
        [
            ("no-store", {}, 'cache_mode is "no-store"'),
            ("default", {"bypass": NO_KEY}, NO_KEY.text),
        ],
    )
    def test_a_bypass_records_nothing(
        self, read: Any, store: Any, mode: str, parts: dict[str, Any], why: str
    ) -> None:
        request = StreamingRequest(mode, **parts)
        assert read(request, Source("a", "b"), None) == ["a", "b"]
        assert request.done == store.effects == []
        assert said(request.call) == ("bypass", None, False, why)

    def test_only_if_cached_opens_no_stream(self, read: Any, store: Any) -> None:
        source = Source("a")
        with pytest.raises(CacheMiss):
            read(StreamingRequest("only-if-cached"), source, None)
        assert source.read == 0

    def test_reload_asks_without_a_look(self, read: Any, store: Any) -> None:
        request = StreamingRequest("reload")
        assert read(request, Source("a"), None) == ["a"]
        assert store.effects == [("save", DRAFT)]
        assert said(request.call) == ("reload", None, True, "")

    def test_an_item_that_cannot_be_kept_ends_the_recording(self, read: Any, store: Any) -> None:
        request = StreamingRequest(encode=lambda item: NotStorable(ODD) if item == "b" else item)
        assert read(request, Source("a", "b", "c"), None) == ["a", "b", "c"]
        assert store.effects == [("lookup", KEY, False)]
        assert said(request.call) == ("miss", None, False, ODD.text)

    def test_what_fails_in_encoding_does_not_reach_the_caller(self, read: Any, store: Any) -> None:
        request = StreamingRequest(encode=lambda item: RecursionError())
        assert read(request, Source("a", "b"), None) == ["a", "b"]
        assert request.call.reason == "the answer could not be encoded (RecursionError)"

    def test_a_stream_without_end_does_not_fill_the_memory(
        self, read: Any, store: Any, settings: Any
    ) -> None:
        settings.LLMCACHE = {"MAX_ENTRY_BYTES": 10}
        request = StreamingRequest(encode=lambda item: "1234")
        assert len(read(request, Source(*range(100)), None)) == 100
        assert request.done == ["before asking", *(("encode", item) for item in range(3))]
        assert not request.call.stored
        assert "MAX_ENTRY_BYTES" in request.call.reason

    def test_each_is_recorded_and_signalled_once(
        self, read: Any, store: Any, answered: list[Call]
    ) -> None:
        with capture() as calls:
            read(StreamingRequest(), Source("a"), None)
        assert len(calls) == 1
        assert answered == calls
        assert calls[0].seconds > 0


def test_an_item_is_encoded_before_the_caller_may_change_it(store: Any) -> None:
    request = StreamingRequest()
    for item in drive_stream(request, lambda: iter([["a"], ["b"]])):
        item.clear()
    assert ("draft", [b"['a']", b"['b']"]) in request.done


def test_a_stream_is_shown_where_the_call_was_made(store: Any) -> None:
    with capture() as inside:
        stream = drive_stream(StreamingRequest(), lambda: iter("ab"))
    with capture() as outside:
        assert list(stream) == ["a", "b"]
    assert [call.stored for call in inside] == [True]
    assert outside == []


def test_a_stream_that_is_forgotten_is_closed(store: Any) -> None:
    source = Source("a", "b")
    stream = drive_stream(StreamingRequest(), source.open)
    assert next(stream) == "a"
    del stream
    gc.collect()
    assert source.closed
    assert store.effects == [("lookup", KEY, False)]


async def test_a_cancelled_stream_stores_nothing(store: Any) -> None:
    closed = asyncio.Event()

    async def never_ending() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            closed.set()

    async def read() -> None:
        async for _ in adrive_stream(request, never_ending):
            begun.set()

    request, begun = StreamingRequest(), asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert store.effects == [("lookup", KEY, False)]
    assert request.call.reason == "CancelledError was raised"
