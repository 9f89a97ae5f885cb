"""The way of one call: the rules, written once, and the two drivers that carry them out.

`answer` is a generator. It does no I/O: it yields what it needs (`Lookup`, `Ask`, `Store`), is
sent the result, and returns the answer. `drive` carries the steps out for a
synchronous caller and `adrive` for a coroutine, so the rules cannot differ between the two, and
are tested without a server.

Where the answer is a stream, `drive_stream` and `adrive_stream` follow the same rules. For them, to
`Ask` is to hand on the items as they come; what the flow is told of it is their `Recording`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from contextlib import aclosing
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from llmcache import outcomes, signals
from llmcache.conf import settings
from llmcache.exceptions import CacheMiss
from llmcache.outcomes import Call, Outcome
from llmcache.policy import CacheMode, Policy
from llmcache.store import entries
from llmcache.store.durable import Draft
from llmcache.store.entries import TOO_LARGE, Found, Missing

logger = logging.getLogger("llmcache")


class Request(Protocol):
    """What the flow has to know of a call; the ways in (`client`) provide it."""

    @property
    def call(self) -> Call:
        """The record of this call, with key, namespace and model; the flow fills in the rest."""

    @property
    def policy(self) -> Policy: ...

    @property
    def bypass(self) -> str:
        """Why this call cannot be cached; empty when it can."""

    def restore(self, found: Found) -> Any:
        """The answer that `found` holds. Raises whatever it may when it does not validate."""

    def before_asking(self) -> None:
        """Note what is to be kept of the request while it is still as the caller gave it."""

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        """`answer` as an entry. Raises `NotStorable` when it should not be kept."""


class StreamRequest(Request, Protocol):
    """A call whose answer is a stream.

    Its `restore` gives back the items of a hit, all of them validated; its `draft` is given a
    `Recording` as the answer.
    """

    def encode_item(self, item: Any) -> bytes:
        """One item for the store. Raises `NotStorable` when the stream should not be kept."""


class NotStorable(Exception):
    """An answer is returned and not stored; the message says why."""


class Recording:
    """What has passed of a stream, encoded.

    An item is encoded before the caller gets it, who may change it. Once there is one that cannot
    be kept, or more than `MAX_ENTRY_BYTES`, nothing is held any more: a stream may have no end.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._items: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None

    def add(self, item: Any) -> None:
        """Note `item`. Raises nothing: see `items`."""
        if self._failure is None:
            try:
                self._keep(self._encode(item))
            except Exception as error:  # noqa: BLE001 - raised when all have passed
                self._failure = error
                self._items.clear()

    def items(self) -> list[bytes]:
        """All items. Raises what went wrong with the first that cannot be kept."""
        if self._failure is not None:
            raise self._failure
        return self._items

    def _keep(self, encoded: bytes) -> None:
        self._items.append(encoded)
        self._size += len(encoded)
        if self._size > settings.max_entry_bytes:
            raise NotStorable(TOO_LARGE)


NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find the entry under `key`. The result: `Found` or `Missing`."""

    key: str
    stale: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model. The result: the answer; the model's error is thrown into the flow."""


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the entry. The result: None, or why it is not kept."""

    draft: Draft


Step = Lookup | Ask | Store
Asked = TypeVar("Asked", bound=Request)
Flow = Generator[Step, Any, Any]


def answer(request: Request) -> Flow:
    """Answer `request` from the store or from the model, and say how in its `call`.

    Raises what the model raises, and `CacheMiss` when it must not be asked; nothing else.
    """
    call, mode = request.call, request.policy.mode
    call.reason = request.bypass
    if mode is CacheMode.NO_STORE:
        call.reason = 'cache_mode is "no-store"'
    if call.reason:
        call.outcome = Outcome.BYPASS
    elif mode.reads:
        found = yield Lookup(call.key, stale=mode is CacheMode.FORCE_CACHE)
        if isinstance(found, Missing):
            call.reason = found.reason
        elif (restored := _restore(request, found)) is not NOTHING:
            return restored
    if mode is CacheMode.ONLY_IF_CACHED:
        raise CacheMiss(call.key, call.namespace, call.reason or "nothing is stored")
    if call.outcome is Outcome.BYPASS:
        return (yield from _ask(call))
    return (yield from _ask_and_store(request))


def _restore(request: Request, found: Found) -> Any:
    """The answer that `found` holds, noted as a hit; `NOTHING` when it must not be served."""
    call = request.call
    try:
        restored = request.restore(found)
    except Exception as error:  # noqa: BLE001 - a validator may raise anything
        call.reason = f"the entry does not validate any more ({type(error).__name__})"
        entries.refuse(call.key, found.tier, error)
        return NOTHING
    call.outcome = Outcome.HIT if found.fresh else Outcome.STALE
    call.tier = found.tier
    return restored


def _prepare(request: Request) -> None:
    try:
        request.before_asking()
    except Exception as error:  # noqa: BLE001 - law A
        logger.warning("llmcache: the request will not be stored with its answer: %r", error)


def _ask(call: Call) -> Flow:
    try:
        return (yield Ask())
    except BaseException as error:
        raised = f"{type(error).__name__} was raised"
        if isinstance(error, GeneratorExit):
            raised = "the stream was not read to its end"
        call.reason = f"{call.reason}; {raised}" if call.reason else raised
        raise


def _ask_and_store(request: Request) -> Flow:
    call = request.call
    call.outcome = Outcome.MISS if request.policy.mode.reads else Outcome.RELOAD
    asked, started = time.time(), time.perf_counter()
    _prepare(request)
    result = yield from _ask(call)
    try:
        draft = request.draft(result, asked, time.perf_counter() - started)
    except NotStorable as error:
        call.reason = str(error)
    except Exception as error:
        call.reason = f"the answer could not be encoded ({type(error).__name__})"
        logger.warning("llmcache: an answer was not stored: %r", error, exc_info=True)
    else:
        refusal = yield Store(draft)
        call.stored = refusal is None
        call.reason = refusal or call.reason
    return result


@dataclass(slots=True)
class Shared:
    """What requests of one key have in common when many are answered at once.

    `found` is what a lookup of many keys found. Once one of the requests was answered by the
    model, it is that answer as stored, `made` just now. None: nothing is known, look it up.
    """

    found: Found | Missing | None = None
    made: bool = False

    def look_up(self, step: Lookup) -> Found | Missing | None:
        if not isinstance(self.found, Found):
            return self.found
        if not (self.found.fresh or step.stale):
            return Missing()
        entries.count_hit(step.key)
        return self.found

    def keep(self, draft: Draft) -> None:
        self.found = entries.copy_of(draft)
        self.made = self.found is not None


def drive(request: Request, ask: Callable[[], Any]) -> Any:
    """Carry out the flow of `request` for a synchronous caller; `ask` asks the model."""
    steps, started = answer(request), time.perf_counter()
    stopped: StopIteration | None = None
    try:
        step = next(steps)
        while True:
            try:
                result = _carry_out(step, ask)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                stopped = error if isinstance(error, StopIteration) else None
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    except RuntimeError as error:
        if stopped is not None and error.__cause__ is stopped:
            raise stopped from None  # no generator lets it through as it is (PEP 479)
        raise
    finally:
        outcomes.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


def drive_but_asking(request: Asked, shared: Shared) -> Generator[Asked, Any, Any]:
    """`drive` for one of many, whose model is asked elsewhere, on another thread.

    Yields `request` where `drive` asks. It is sent the answer, or the model's error is thrown in.
    All else (tiers, captures, signals) stays on the thread and the connections of the caller.
    """
    steps, started = answer(request), time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Ask):
                    result = yield request
                else:
                    result = _carry_out(step, _nobody, shared)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        outcomes.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


async def adrive(
    request: Request, ask: Callable[[], Awaitable[Any]], shared: Shared | None = None
) -> Any:
    """Carry out the flow of `request` for a coroutine; `ask` asks the model."""
    steps, started = answer(request), time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                result = await _acarry_out(step, ask, shared)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        outcomes.record(request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def drive_stream(
    request: StreamRequest, ask: Callable[[], Iterable[Any]]
) -> Generator[Any, None, None]:
    """Carry out the flow of `request` while the caller iterates; `ask` opens the model's stream.

    Nothing is done before the caller wants the first item. One that stops early closes the model's
    stream, and nothing is stored. The call is shown to the captures around this function, when the
    stream has come to its end.
    """
    return _stream(request, ask, copy_context())


def adrive_stream(
    request: StreamRequest, ask: Callable[[], AsyncIterable[Any]]
) -> AsyncGenerator[Any, None]:
    """`drive_stream` for a coroutine."""
    return _astream(request, ask, copy_context())


def _stream(
    request: StreamRequest, ask: Callable[[], Iterable[Any]], context: Context
) -> Generator[Any, None, None]:
    steps, started, asked = answer(request), time.perf_counter(), False
    try:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Ask):
                        asked, result = True, _recording(request)
                        yield from _passed_on(ask(), result)
                    else:
                        result = _carry_out(step, ask)
                except BaseException as error:  # noqa: BLE001 - the flow raises it again
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            replayed = () if asked else end.value
        yield from replayed
    finally:
        context.run(outcomes.record, request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


async def _astream(
    request: StreamRequest, ask: Callable[[], AsyncIterable[Any]], context: Context
) -> AsyncGenerator[Any, None]:
    steps, started, asked = answer(request), time.perf_counter(), False
    try:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Ask):
                        asked, result = True, _recording(request)
                        async with aclosing(_apassed_on(ask(), result)) as items:
                            async for item in items:
                                yield item
                    else:
                        result = await _acarry_out(step, ask)
                except BaseException as error:  # noqa: BLE001 - the flow raises it again
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            replayed = () if asked else end.value
        for item in replayed:
            yield item
    finally:
        context.run(outcomes.record, request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def _recording(request: StreamRequest) -> Recording | None:
    """None where nothing is to be stored."""
    bypassed = request.call.outcome is Outcome.BYPASS
    return None if bypassed else Recording(request.encode_item)


def _passed_on(stream: Iterable[Any], recording: Recording | None) -> Generator[Any, None, None]:
    try:
        for item in stream:
            if recording is not None:
                recording.add(item)
            yield item
    finally:
        if close := getattr(stream, "close", None):
            close()


async def _apassed_on(
    stream: AsyncIterable[Any], recording: Recording | None
) -> AsyncGenerator[Any, None]:
    try:
        async for item in stream:
            if recording is not None:
                recording.add(item)
            yield item
    finally:
        if aclose := getattr(stream, "aclose", None):
            await aclose()


def _nobody() -> None:
    raise NotImplementedError  # (`drive_but_asking` asks nobody)


def _carry_out(step: Step, ask: Callable[[], Any], shared: Shared | None = None) -> Any:
    if isinstance(step, Lookup):
        known = shared.look_up(step) if shared else None
        return known or entries.lookup(step.key, stale=step.stale)
    if isinstance(step, Store):
        refusal = entries.save(step.draft)
        if shared:
            shared.keep(step.draft)
        return refusal
    return ask()


async def _acarry_out(step: Step, ask: Callable[[], Any], shared: Shared | None = None) -> Any:
    if isinstance(step, Lookup):
        known = shared.look_up(step) if shared else None
        return known or await entries.alookup(step.key, stale=step.stale)
    if isinstance(step, Store):
        refusal = await entries.asave(step.draft)
        if shared:
            shared.keep(step.draft)
        return refusal
    return await ask()
