"""Streams pass on as they come, and are replayed byte for byte."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest

import llmcache
from llmcache.http import request as http_request
from llmcache.http import transport as http_transport
from llmcache.models import CacheEntry, Lease
from project.standin.server import StandIn
from tests.support.clients import CLOSE
from tests.support.provider import ADDRESS, QUESTION, Provider, Said, streamed, whole
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = f"{ADDRESS}/chat/completions"
ASKED = {**QUESTION, "stream": True}
#: Cut in the middle of a letter, of an event, and of several at once.
CUT = [b"".join(streamed())[at : at + 37] for at in range(0, len(b"".join(streamed())), 37)]


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture
def provider() -> Provider:
    return Provider(Said(streamed()))


def read(provider: Provider, is_async: bool, *, most: int = 1000, **options: Any) -> list[bytes]:
    """The chunks of a stream, as they came over the network; not more than `most`."""
    transport = llmcache.http_transport(provider.transport(), **options)
    if is_async:
        return asyncio.run(_aread(transport, most))
    with httpx2.Client(transport=transport) as http, http.stream("POST", CHAT, json=ASKED) as came:
        return _taken(came.iter_raw(), most)


async def _aread(transport: Any, most: int) -> list[bytes]:
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        http.stream("POST", CHAT, json=ASKED) as came,
    ):
        found: list[bytes] = []
        chunks = came.aiter_raw()
        while len(found) < most and (chunk := await anext(chunks, b"")):
            found.append(chunk)
        return found


def _taken(chunks: Iterator[bytes], most: int) -> list[bytes]:
    return [chunk for _, chunk in zip(range(most), chunks, strict=False)]


def outcomes(ask: Callable[[], object]) -> list[tuple[str, bool]]:
    with llmcache.capture() as calls:
        ask()
    return [(str(call.outcome), call.stored) for call in calls]


def test_a_chunk_is_not_held_up_for_the_next(provider: Provider) -> None:
    transport = llmcache.http_transport(provider.transport())
    with httpx2.Client(transport=transport) as http, http.stream("POST", CHAT, json=ASKED) as came:
        for number, chunk in enumerate(came.iter_raw()):
            assert chunk == streamed()[number]
            assert provider.told == [f"chunk {at}" for at in range(number + 1)]


async def test_a_chunk_is_not_held_up_on_a_loop(provider: Provider) -> None:
    transport = llmcache.http_transport(provider.transport())
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        http.stream("POST", CHAT, json=ASKED) as came,
    ):
        number = 0
        async for chunk in came.aiter_raw():
            assert chunk == streamed()[number]
            assert provider.told == [f"chunk {at}" for at in range(number + 1)]
            number += 1


def test_the_chunks_are_replayed_as_they_were_cut(provider: Provider, is_async: bool) -> None:
    provider.said = Said(CUT)
    live = read(provider, is_async)
    assert outcomes(lambda: [read(provider, is_async)] == [live]) == [("hit", False)]
    assert read(provider, is_async) == live == CUT
    assert len(provider.asked) == 1


def test_an_sdk_that_stops_at_the_end_need_not_read_on(provider: Provider, is_async: bool) -> None:
    provider.said = Said([*streamed(), b": and on\n\n"])
    assert outcomes(lambda: list(chat(provider, is_async))) == [("miss", True)]
    assert provider.told[-2:] == [f"chunk {len(streamed()) - 1}", "closed"]
    assert outcomes(lambda: list(chat(provider, is_async))) == [("hit", False)]


def chat(provider: Provider, is_async: bool) -> list[Any]:
    transport = llmcache.http_transport(provider.transport())
    if not is_async:
        http = httpx2.Client(transport=transport)
        sdk = openai.OpenAI(api_key="k", base_url=ADDRESS, http_client=http)
        return list(sdk.chat.completions.create(**ASKED))  # type: ignore[call-overload]

    async def asked() -> list[Any]:
        http = httpx2.AsyncClient(transport=transport)
        sdk = openai.AsyncOpenAI(api_key="k", base_url=ADDRESS, http_client=http)
        stream = await sdk.chat.completions.create(**ASKED)  # type: ignore[call-overload]
        return [chunk async for chunk in stream]

    return asyncio.run(asked())


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_stream_that_is_left_is_closed_and_not_kept(
    provider: Provider, is_async: bool, most: int
) -> None:
    assert outcomes(lambda: read(provider, is_async, most=most)) == [("miss", False)]
    assert provider.told == [*(f"chunk {at}" for at in range(most)), "closed"]
    assert not CacheEntry.objects.exists()
    assert not Lease.objects.exclude(token="").exists()


def test_words_of_the_end_inside_of_a_text_are_no_end(provider: Provider, is_async: bool) -> None:
    provider.said = Said([streamed()[0] + b": [DONE]\n\n", *streamed()[1:]])
    assert outcomes(lambda: read(provider, is_async, most=1)) == [("miss", False)]
    assert provider.told == ["chunk 0", "closed"]


def test_a_stream_that_fails_is_closed_and_not_kept(provider: Provider, is_async: bool) -> None:
    provider.said = Said(streamed()[:-1], fails=httpx2.ReadError("gone"))
    with llmcache.capture() as calls, pytest.raises(httpx2.ReadError, match="gone"):
        read(provider, is_async)
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)]
    assert provider.told[-1] == "closed"
    assert not CacheEntry.objects.exists()


def test_a_stream_past_the_cache_passes_as_it_comes(provider: Provider, is_async: bool) -> None:
    with llmcache.override(mode="no-store"):
        assert outcomes(lambda: read(provider, is_async, most=2)) == [("bypass", False)]
        assert provider.told == ["chunk 0", "chunk 1", "closed"]
        assert read(provider, is_async) == streamed()
    assert not CacheEntry.objects.exists()


def test_a_stream_that_is_too_large_passes_and_is_not_kept(
    provider: Provider, is_async: bool, settings: Any
) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "MAX_ENTRY_BYTES": 300}
    with llmcache.capture() as calls:
        assert read(provider, is_async) == streamed()
    assert [(call.outcome, call.stored, call.reason_code) for call in calls] == [
        ("miss", False, "too-large")
    ]


def test_an_answer_that_is_too_large_passes_and_is_not_kept(settings: Any) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "MAX_ENTRY_BYTES": 300}
    provider = Provider(Said(whole()))
    with httpx2.Client(transport=llmcache.http_transport(provider.transport())) as http:
        assert outcomes(lambda: http.post(CHAT, json=QUESTION)) == [("miss", False)]
        assert http.post(CHAT, json=QUESTION).content == whole()


class Clock:
    """In the place of the module `time`: it goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.module = SimpleNamespace(
            perf_counter=lambda: self.now, time=lambda: 0.0, sleep=self.sleep
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(http_transport, "time", clock.module)
    monkeypatch.setattr(http_request, "time", clock.module)
    pausing: Any = SimpleNamespace(sleep=clock.asleep, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(http_transport, "asyncio", pausing)
    return clock


def slow(clock: Clock, chunks: list[bytes]) -> Any:
    """A second goes by before each chunk."""

    class Slow(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in chunks:
                clock.sleep(1)
                yield chunk

    return Slow(chunks)


@pytest.mark.parametrize(("replay", "seconds"), [("paced", len(CUT)), ("at-once", 0)])
def test_a_stream_is_replayed_at_its_pace(
    clock: Clock, is_async: bool, replay: Any, seconds: int
) -> None:
    provider = Provider(Said(slow(clock, CUT)))
    read(provider, is_async)
    assert clock.now == len(CUT)
    assert read(provider, is_async, replay=replay) == CUT
    assert clock.now == len(CUT) + seconds


def test_who_reads_slowly_is_not_held_up_besides(clock: Clock) -> None:
    provider = Provider(Said(slow(clock, CUT)))
    read(provider, False)
    clock.now = 0.0
    transport = llmcache.http_transport(provider.transport(), replay="paced")
    with httpx2.Client(transport=transport) as http, http.stream("POST", CHAT, json=ASKED) as came:
        for _ in came.iter_raw():
            clock.sleep(2)
    assert clock.now == 1 + 2 * len(CUT)


async def test_a_stream_that_nobody_closes_does_no_harm(provider: Provider) -> None:
    transport = llmcache.http_transport(provider.transport())
    http = httpx2.AsyncClient(transport=transport)

    async def leave() -> None:
        request = http.build_request("POST", CHAT, json=ASKED)
        response = await http.send(request, stream=True)
        assert await anext(response.aiter_raw())

    with llmcache.capture() as calls:
        await leave()
        gc.collect()
        await await_it(lambda: calls)
    assert provider.told == ["chunk 0", "closed"]
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)]


async def await_it(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def test_a_task_that_is_cancelled_in_a_stream_closes_it(provider: Provider) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield streamed()[0]
        begun.set()
        await asyncio.Event().wait()

    def answer(_: Any) -> Any:
        return httpx2.Response(200, content=stuck())

    transport = llmcache.http_transport(httpx2.MockTransport(answer))
    http = httpx2.AsyncClient(transport=transport)

    async def ask() -> None:
        async with http.stream("POST", CHAT, json=ASKED) as came:
            async for _ in came.aiter_raw():
                pass

    with llmcache.capture() as calls:
        task = asyncio.create_task(ask())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)]


def test_another_thread_may_close_a_stream(provider: Provider) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    class Stuck(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            yield streamed()[0]
            waits.set()
            goes_on.wait()
            yield from streamed()[1:]

    provider.said = Said(Stuck())
    http = httpx2.Client(transport=llmcache.http_transport(provider.transport()))
    response = http.send(http.build_request("POST", CHAT, json=ASKED), stream=True)
    reader = threading.Thread(target=lambda: list(response.iter_raw()), daemon=True)
    reader.start()
    waits.wait()
    response.close()
    goes_on.set()
    reader.join()
    assert provider.told == ["chunk 0", "closed", "chunk 1"]


def test_the_connection_of_a_stream_that_is_left_is_closed(model: StandIn, is_async: bool) -> None:
    model.chunk_delay = 0.01
    cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    sdk = llmcache.wrap(cls(api_key="k", base_url=model.url, default_headers=CLOSE))
    if is_async:
        asyncio.run(_leave(sdk))
    else:
        with sdk.chat.completions.create(**ASKED) as stream:
            next(iter(stream))
    wait_until(lambda: model.open_streams == 0)
    assert model.abandoned_streams == 1
    assert not CacheEntry.objects.exists()


async def _leave(sdk: Any) -> None:
    async with await sdk.chat.completions.create(**ASKED) as stream:
        await anext(aiter(stream))


async def test_a_call_that_is_cancelled_leaves_nothing(model: StandIn) -> None:
    model.latency = 5
    sdk = llmcache.wrap(openai.AsyncOpenAI(api_key="k", base_url=model.url, default_headers=CLOSE))
    with llmcache.capture() as calls:
        task = asyncio.create_task(sdk.chat.completions.create(**QUESTION))  # type: ignore[call-overload]
        await await_it(lambda: model.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    model.latency = 0
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)]
    await sdk.chat.completions.create(**QUESTION)  # type: ignore[call-overload]
    assert len(model.calls) == 2


async def test_another_task_may_close_a_stream() -> None:
    begun, told = asyncio.Event(), list[str]()

    class Stuck(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            begun.set()
            await asyncio.Event().wait()
            yield b""

        async def aclose(self) -> None:
            told.append("closed")

    answer = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Stuck()))
    http = httpx2.AsyncClient(transport=llmcache.http_transport(answer))
    response = await http.send(http.build_request("POST", CHAT, json=ASKED), stream=True)
    reader = asyncio.create_task(anext(response.aiter_raw()))
    await begun.wait()
    await response.aclose()
    assert told == ["closed"]
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
