"""The drivers: they carry the steps of the flow out, on a thread or on an event loop."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmcache import signals, store, trampoline
from llmcache.background import transactions
from llmcache.flow.revalidation import arefresh_soon, refresh_soon
from llmcache.flow.rules import answer
from llmcache.flow.steps import (
    Acquire,
    Ask,
    Flow,
    Lookup,
    Refresh,
    Request,
    Step,
    Store,
)
from llmcache.leases import aacquire, acquire, alone
from llmcache.outcomes import Inside, recorded_in
from llmcache.policy import CacheMode, renewing
from llmcache.store.records import Draft, Found, Missing
from llmcache.usage import ledger


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
        return self.found

    def keep(self, draft: Draft) -> None:
        self.found = store.copy_of(draft)
        self.made = self.found is not None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Work for another thread: to wait for one's turn, or to ask the model (`asks`)."""

    work: Callable[[], Any]
    asks: bool


def drive(request: Request, ask: Callable[[], Any], steps: Flow | None = None) -> Any:
    """Carry out the flow of `request` for a synchronous caller; `ask` asks the model.

    `steps`: another flow than that of `rules.answer`.
    """
    started = time.perf_counter()
    try:
        return trampoline.run(steps or answer(request), partial(carry_out, request, ask, None))
    finally:
        ledger.record(request.call, started)
        if signals.call_answered.receivers:  # (each hit comes by)
            signals.send(signals.call_answered, type(request), call=request.call)


async def adrive(
    request: Request,
    ask: Callable[[], Awaitable[Any]],
    steps: Flow | None = None,
    shared: Shared | None = None,
) -> Any:
    """`drive` for a coroutine."""
    started = time.perf_counter()
    try:
        perform = partial(acarry_out, request, ask, shared)
        return await trampoline.arun(steps or answer(request), perform)
    finally:
        ledger.record(request.call, started)
        await signals.asend(signals.call_answered, type(request), call=request.call)


def drive_but_asking(
    request: Request, ask: Callable[[], Any], shared: Shared
) -> Generator[Elsewhere, Any, Any]:
    """`drive` for one of many, whose model is asked elsewhere, on another thread.

    Yields what is to be done there, and is sent the result, or the error is thrown in. All else
    (tiers, captures, signals) stays on the thread and the connections of the caller.
    """
    started = time.perf_counter()

    def perform(step: Step) -> Generator[Elsewhere, Any, Any]:
        work = partial(carry_out, request, ask, shared, step)
        if isinstance(step, Ask):
            return (yield Elsewhere(work, asks=True))
        if isinstance(step, Acquire) and not transactions.stays_here():
            return (yield Elsewhere(work, asks=False))
        return work()

    try:
        return (yield from trampoline.relay(answer(request), perform))
    finally:
        ledger.record(request.call, started)
        signals.send(signals.call_answered, type(request), call=request.call)


@contextmanager
def making(request: Request) -> Iterator[None]:
    """Around each step of asking: what is asked inside is noted, and asked anew for a new answer.

    A cached client inside of a decorated function, a function inside of another, a client inside of
    a validator: the answer of the outer call is made of theirs. Threads that a function starts do
    not know of it, unless they are given a copy of the context.
    """
    if request.inside is None:
        request.inside = Inside(is_one_call=request.is_one_call)
    renews = request.policy.mode is CacheMode.RELOAD
    with recorded_in(request.inside), renewing() if renews else nullcontext():
        yield


def carry_out(request: Request, ask: Callable[[], Any], shared: Shared | None, step: Step) -> Any:
    """The result of `step`, for a synchronous caller."""
    match step:
        case Lookup():
            known = shared.look_up(step) if shared else None
            return known or store.lookup(step.key, stale=step.stale)
        case Acquire():
            if not step.alone:
                had = acquire(step.key, request.wait_seconds, step.refused, step.missing)
                if had is not None:
                    return had
            generation = _generation_of(step)
            if generation is None:
                generation = store.generation()
            return alone(step.key, generation)
        case Ask():
            with making(request):
                return ask()
        case Store():
            refusal = store.save(step.draft, step.generation)
            if shared:
                shared.keep(step.draft)
            return refusal
        case Refresh():
            return refresh_soon(request)


async def acarry_out(
    request: Request, ask: Callable[[], Any], shared: Shared | None, step: Step
) -> Any:
    """`carry_out` for a coroutine."""
    match step:
        case Lookup():
            known = shared.look_up(step) if shared else None
            return known or await store.alookup(step.key, stale=step.stale)
        case Acquire():
            if not step.alone:
                had = await aacquire(step.key, request.wait_seconds, step.refused, step.missing)
                if had is not None:
                    return had
            generation = _generation_of(step)
            if generation is None:
                generation = await store.ageneration()
            return alone(step.key, generation)
        case Ask():
            with making(request):
                return await ask()
        case Store():
            refusal = await store.asave(step.draft, step.generation)
            if shared:
                shared.keep(step.draft)
            return refusal
        case Refresh():
            return arefresh_soon(request)


def _generation_of(step: Acquire) -> int | None:
    """That of the look-up, for who asks alone; who has waited was told of it too long ago."""
    return step.missing.generation if step.alone else None
