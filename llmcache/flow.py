"""The way of one call: the rules, written once, and the two drivers that carry them out.

`answer` is a generator. It does no I/O: it yields what it needs (`Lookup`, `Ask`, `Store`), is
sent the result, and returns the answer. `drive` carries the steps out for a
synchronous caller and `adrive` for a coroutine, so the rules cannot differ between the two, and
are tested without a server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from llmcache import outcomes, signals
from llmcache.exceptions import CacheMiss
from llmcache.outcomes import Call, Outcome
from llmcache.policy import CacheMode, Policy
from llmcache.store import entries
from llmcache.store.durable import Draft
from llmcache.store.entries import Found, Missing

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


class NotStorable(Exception):
    """An answer is returned and not stored; the message says why."""


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


def drive(request: Request, ask: Callable[[], Any]) -> Any:
    """Carry out the flow of `request` for a synchronous caller; `ask` asks the model."""
    steps, started = answer(request), time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                result = _carry_out(step, ask)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        outcomes.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


async def adrive(request: Request, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Carry out the flow of `request` for a coroutine; `ask` asks the model."""
    steps, started = answer(request), time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                result = await _acarry_out(step, ask)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        outcomes.record(request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def _carry_out(step: Step, ask: Callable[[], Any]) -> Any:
    if isinstance(step, Lookup):
        return entries.lookup(step.key, stale=step.stale)
    if isinstance(step, Store):
        return entries.save(step.draft)
    return ask()


async def _acarry_out(step: Step, ask: Callable[[], Awaitable[Any]]) -> Any:
    if isinstance(step, Lookup):
        return await entries.alookup(step.key, stale=step.stale)
    if isinstance(step, Store):
        return await entries.asave(step.draft)
    return await ask()
