"""The drivers: they carry the steps of the flow out, on a thread or on an event loop."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmcache import signals
from llmcache.conf import settings
from llmcache.flow.refreshing import arefresh_soon, refresh_soon
from llmcache.flow.rules import answer, refreshed
from llmcache.flow.steps import (
    Acquire,
    Ask,
    Flow,
    Lookup,
    Refresh,
    Request,
    Step,
    Store,
    Turn,
)
from llmcache.leases import Ending, Lease, aacquire, acquire
from llmcache.store import entries, ledger, placement
from llmcache.store.durable import Draft
from llmcache.store.entries import Found, Missing


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


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Work for another thread: to wait for one's turn, or to ask the model (`asks`)."""

    work: Callable[[], Any]
    asks: bool


def drive(request: Request, ask: Callable[[], Any]) -> Any:
    """Carry out the flow of `request` for a synchronous caller; `ask` asks the model."""
    return _drive(answer(request), request, ask)


def refresh(request: Request, ask: Callable[[], Any], lease: Lease | None) -> Any:
    """`drive` for an answer that is to be a new one; `lease` is the right to ask."""
    return _drive(refreshed(request, lease), request, ask)


async def adrive(
    request: Request, ask: Callable[[], Awaitable[Any]], shared: Shared | None = None
) -> Any:
    """Carry out the flow of `request` for a coroutine; `ask` asks the model."""
    return await _adrive(answer(request), request, ask, shared)


async def arefresh(request: Request, ask: Callable[[], Awaitable[Any]], lease: Lease | None) -> Any:
    """`refresh` for a coroutine."""
    return await _adrive(refreshed(request, lease), request, ask, None)


def drive_but_asking(
    request: Request, ask: Callable[[], Any], shared: Shared
) -> Generator[Elsewhere, Any, Any]:
    """`drive` for one of many, whose model is asked elsewhere, on another thread.

    Yields what is to be done there, and is sent the result, or the error is thrown in. All else
    (tiers, captures, signals) stays on the thread and the connections of the caller.
    """
    steps, started = answer(request), time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Ask):
                    result = yield Elsewhere(ask, asks=True)
                elif isinstance(step, Acquire) and not placement.stays_here():
                    result = yield Elsewhere(partial(_get_ready, step), asks=False)
                else:
                    result = carry_out(step, request, shared)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        ledger.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


def _drive(steps: Flow, request: Request, ask: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    stopped: StopIteration | None = None
    try:
        step = next(steps)
        while True:
            try:
                result = ask() if isinstance(step, Ask) else carry_out(step, request)
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
        ledger.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


async def _adrive(
    steps: Flow, request: Request, ask: Callable[[], Awaitable[Any]], shared: Shared | None
) -> Any:
    started = time.perf_counter()
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Ask):
                    result = await ask()
                else:
                    result = await acarry_out(step, request, shared)
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value
    finally:
        ledger.record(request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def carry_out(step: Step, request: Request, shared: Shared | None = None) -> Any:
    """Carry out any step but `Ask`, for a synchronous caller."""
    match step:
        case Lookup():
            known = shared.look_up(step) if shared else None
            return known or entries.lookup(step.key, stale=step.stale)
        case Acquire():
            return _get_ready(step)
        case Store():
            refusal = entries.save(step.draft, step.since)
            _share(step, shared)
            return refusal
        case Refresh():
            return refresh_soon(request)
    raise AssertionError(f"the driver itself carries out {step}")


async def acarry_out(step: Step, request: Request, shared: Shared | None = None) -> Any:
    """`carry_out` for a coroutine."""
    match step:
        case Lookup():
            known = shared.look_up(step) if shared else None
            return known or await entries.alookup(step.key, stale=step.stale)
        case Acquire():
            return await _aget_ready(step)
        case Store():
            refusal = await entries.asave(step.draft, step.since)
            _share(step, shared)
            return refusal
        case Refresh():
            return arefresh_soon(request)
    raise AssertionError(f"the driver itself carries out {step}")


def _get_ready(step: Acquire) -> Turn | Found:
    lease: Lease | Found | None = step.lease
    if lease is None and not step.alone:
        lease = acquire(step.key, settings.wait_seconds, step.refused)
    if isinstance(lease, Found):
        return lease
    with _given_back(lease):
        return Turn(lease, entries.generation())


async def _aget_ready(step: Acquire) -> Turn | Found:
    lease: Lease | Found | None = step.lease
    if lease is None and not step.alone:
        lease = await aacquire(step.key, settings.wait_seconds, step.refused)
    if isinstance(lease, Found):
        return lease
    with _given_back(lease):
        return Turn(lease, await entries.ageneration())


@contextmanager
def _given_back(lease: Lease | None) -> Iterator[None]:
    """A caller that goes away with the lease would keep all others waiting."""
    try:
        yield
    except BaseException:
        if lease is not None:
            lease.end(Ending.ABANDONED)
        raise


def _share(step: Store, shared: Shared | None) -> None:
    if shared:
        shared.keep(step.draft)
