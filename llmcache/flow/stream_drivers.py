"""The drivers of a call whose answer is a stream.

They follow the same rules. For them, to `Ask` is to hand on the items as they come; what the flow
is told of it is their `Recording`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from contextvars import Context, copy_context
from typing import Any

from llmcache import signals, trampoline
from llmcache.background.database import running_loop
from llmcache.conf import settings
from llmcache.flow.drivers import acarry_out, carry_out, making
from llmcache.flow.rules import NOTHING, answer
from llmcache.flow.steps import Ask, Flow, NotRestorable, Step, StreamRequest
from llmcache.outcomes import Outcome, start_stream
from llmcache.reasons import ReasonCode
from llmcache.usage import ledger


class Recording:
    """What has passed of a stream, encoded.

    An item is encoded before the caller gets it, who may change it. Once there is one that cannot
    be kept, or more than `MAX_ENTRY_BYTES`, nothing is held any more: a stream may have no end.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._items: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None

    def add(self, item: Any) -> None:
        """Note `item`. Raises nothing: see `items`."""
        if self._error is not None:
            return
        try:
            self._items.append(self._encode(item))
            self._size += len(self._items[-1])
            if self._size > settings.max_entry_bytes:
                raise NotRestorable(ReasonCode.TOO_LARGE())
        except Exception as error:  # noqa: BLE001 - whoever asks for the items has it raised
            self._items, self._error = [], error

    def items(self) -> list[bytes]:
        """All items. Raises what went wrong with the first that cannot be kept."""
        if self._error is not None:
            raise self._error
        return self._items


def drive_stream(
    request: StreamRequest, ask: Callable[[], Iterable[Any]]
) -> Generator[Any, None, None]:
    """Carry out the flow of `request` while the caller iterates; `ask` opens the model's stream.

    Nothing is done before the caller wants the first item. One that stops early closes the model's
    stream, and nothing is stored. The call is shown to the captures around this function, when the
    stream has come to its end.
    """
    return _stream(answer(request), request, ask, copy_context())


def adrive_stream(
    request: StreamRequest, ask: Callable[[], AsyncIterable[Any]]
) -> AsyncGenerator[Any, None]:
    """`drive_stream` for a coroutine."""
    return _astream(answer(request), request, ask, copy_context())


def read_stream(request: StreamRequest, ask: Callable[[], Iterable[Any]], steps: Flow) -> None:
    """Carry out another flow, and read the model's stream to its end for nobody."""
    for _ in _stream(steps, request, ask, copy_context()):
        pass


async def aread_stream(
    request: StreamRequest, ask: Callable[[], AsyncIterable[Any]], steps: Flow
) -> None:
    """`read_stream` for a coroutine."""
    async with aclosing(_astream(steps, request, ask, copy_context())) as items:
        async for _ in items:
            pass


async def aclose(items: Any) -> None:
    """Close an asynchronous stream, unless the event loop is at it.

    Where streams were left open inside of each other, the loop closes all of them at once, each by
    a task of its own. These tasks begin in one turn, so they are known after that.
    """
    try:
        await asyncio.sleep(0)
    finally:  # (anyio cancels each wait of who is cancelled, that one too)
        if hasattr(items, "aclose") and not getattr(items, "ag_running", False):
            await items.aclose()


def _stream(
    steps: Flow, request: StreamRequest, ask: Callable[[], Iterable[Any]], context: Context
) -> Generator[Any, None, None]:
    started, handed_on = time.perf_counter(), NOTHING
    context.run(start_stream, request.call)

    def perform(step: Step) -> Generator[Any, None, Any]:
        nonlocal handed_on
        if not isinstance(step, Ask):
            return carry_out(request, ask, None, step)
        handed_on = recording = _recording(request)
        yield from _passed_on(request, ask, recording)
        return recording

    try:
        answered = yield from trampoline.relay(steps, perform)
        yield from () if answered is handed_on else answered
    finally:
        context.run(ledger.record, request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


async def _astream(
    steps: Flow, request: StreamRequest, ask: Callable[[], AsyncIterable[Any]], context: Context
) -> AsyncGenerator[Any, None]:
    running_loop()
    started, handed_on = time.perf_counter(), NOTHING
    context.run(start_stream, request.call)
    try:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Ask):
                        handed_on = result = _recording(request)
                        items = _apassed_on(request, ask, result)
                        try:
                            async for item in items:
                                yield item
                        finally:
                            await aclose(items)
                    else:
                        result = await acarry_out(request, ask, None, step)
                except BaseException as error:  # noqa: BLE001 - the flow raises it again
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            replayed = () if end.value is handed_on else end.value
        for item in replayed:
            yield item
    finally:
        context.run(ledger.record, request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def _recording(request: StreamRequest) -> Recording | None:
    """None where nothing is to be stored."""
    bypassed = request.call.outcome is Outcome.BYPASS
    return None if bypassed else Recording(request.encode_item)


def _passed_on(
    request: StreamRequest, ask: Callable[[], Iterable[Any]], recording: Recording | None
) -> Generator[Any, None, None]:
    with making(request):
        stream = ask()
        items = iter(stream)
    try:
        # (what is asked between two items, the caller asks)
        while (item := _next(request, items)) is not NOTHING:
            request.begun = True
            if recording is not None:
                recording.add(item)
            yield item
    finally:
        if close := getattr(stream, "close", None):
            close()


async def _apassed_on(
    request: StreamRequest, ask: Callable[[], AsyncIterable[Any]], recording: Recording | None
) -> AsyncGenerator[Any, None]:
    with making(request):
        stream = ask()
        items = aiter(stream)
    try:
        while (item := await _anext(request, items)) is not NOTHING:
            request.begun = True
            if recording is not None:
                recording.add(item)
            yield item
    finally:
        await aclose(stream)


def _next(request: StreamRequest, items: Iterator[Any]) -> Any:
    with making(request):
        return next(items, NOTHING)


async def _anext(request: StreamRequest, items: AsyncIterator[Any]) -> Any:
    with making(request):
        return await anext(items, NOTHING)
