"""Requests side by side: what all of their flows want to have done is done at once.

Each has the flow of a single call, and so the same rules. The tiers are looked through once for
all; the model is asked once, for those that it is needed for; and that is one flight. Who asks for
the same ones meanwhile waits for them; who asks for some of them does not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

from django.core.exceptions import ImproperlyConfigured

from llmcache import signals, store, trampoline
from llmcache.background import database
from llmcache.conf import settings
from llmcache.flow.drivers import making
from llmcache.flow.revalidation import arefresh_soon, refresh_soon
from llmcache.flow.rules import answer, refreshed
from llmcache.flow.steps import Acquire, Ask, Flow, Lookup, Request, Step, Store
from llmcache.leases import Ending, Lease, aacquire, acquire, alone
from llmcache.outcomes import Call
from llmcache.store.records import Found, Missing
from llmcache.usage import ledger


class Work(NamedTuple):
    """What is to be done: on a thread, or on an event loop."""

    do: Callable[..., Any]
    ado: Callable[..., Awaitable[Any]]
    arguments: tuple[Any, ...] = ()


#: Work to do; in the end, the result of each of several steps, or flows.
Steps = Generator[Work, Any, list[Any]]


class Renewable(Request, Protocol):
    def anew(self) -> Self:
        """The same call, which is to be asked once more."""


@dataclass(slots=True)
class Abreast:
    """Requests of one kind: they differ in nothing but what is asked.

    `ask` is given some of them, and returns the answer of each; `is_async`: when awaited.
    """

    requests: Sequence[Renewable]
    ask: Callable[[list[Any]], Any]
    is_async: bool
    #: The right to ask for those that are asked for.
    lease: Lease | None = None
    looked: float = 0.0

    @property
    def call(self) -> Call:
        """What the flight of all of them is known by."""
        return Call(key=_key_of_all([each.call.key for each in self.requests]))

    def drive(self) -> list[Any]:
        """The answers, in order. Raises the error of one of those that have one."""
        return self._run([answer(each) for each in self.requests])

    async def adrive(self) -> list[Any]:
        """`drive` for a coroutine."""
        return await self._arun([answer(each) for each in self.requests])

    def again(self) -> Callable[[Lease], Any]:
        """What asks for all of them once more, by the right of a lease (see `flow.steps`)."""
        requests = [each.anew() for each in self.requests]
        return replace(self, requests=requests, lease=None).refresh

    def refresh(self, lease: Lease) -> Any:
        """Ask for all, and store the answers; awaited where `ask` is."""
        self.lease = lease
        flows = [refreshed(each, alone(each.call.key, lease.generation)) for each in self.requests]
        return (self._arun if self.is_async else self._run)(flows)

    def _run(self, flows: list[Flow]) -> list[Any]:
        started = time.perf_counter()
        try:
            return trampoline.run(self._led(flows), lambda work: work.do(*work.arguments))
        finally:
            for call in self._recorded(started):
                signals.send(signals.call_answered, type(self.requests[0]), call=call)

    async def _arun(self, flows: list[Flow]) -> list[Any]:
        started = time.perf_counter()
        try:
            return await trampoline.arun(self._led(flows), lambda work: work.ado(*work.arguments))
        finally:
            for call in self._recorded(started):
                await signals.asend(signals.call_answered, type(self.requests[0]), call=call)

    def _recorded(self, started: float) -> Iterator[Call]:
        """Each call, told to the ledger. Of the time that all took, each has its share."""
        now = time.perf_counter()
        started = now - (now - started) / len(self.requests)
        for request in self.requests:
            ledger.record(request.call, started)
            yield request.call

    def _led(self, flows: list[Flow]) -> Steps:
        """`_side_by_side`; whoever waits for what is asked is let go in the end."""
        ending = Ending.ABANDONED
        try:
            answers = yield from _side_by_side(flows, self._carry_out)
            is_stored = any(each.call.stored for each in self.requests)
            ending = Ending.STORED if is_stored else Ending.RELEASED
            return answers
        except Exception:
            ending = Ending.RELEASED
            raise
        finally:
            if self.lease is not None:
                self.lease.end(ending)

    def _carry_out(self, numbers: list[int], steps: list[Any]) -> Steps:
        """The results of steps of one kind, of the requests with these numbers."""
        requests = [self.requests[number] for number in numbers]
        match steps[0]:
            case Lookup():
                self.looked = time.monotonic()
                keys = [step.key for step in steps]
                found = yield from _look_up(keys, stale=steps[0].stale)
                return [found[key] for key in keys]
            case Acquire():
                return (yield from self._acquire(steps))
            case Ask():
                with making(requests[0]):
                    for request in requests:
                        request.inside = requests[0].inside
                    answers: list[Any] = yield Work(self.ask, self.ask, (requests,))
                    return answers
            case Store():
                drafts = [step.draft for step in steps]
                arguments = drafts, steps[0].generation
                refusals: list[Any] = yield Work(store.save_many, store.asave_many, arguments)
                return refusals
        self._refresh_soon(requests)
        return [None for _ in steps]

    def _acquire(self, steps: list[Acquire]) -> Steps:
        """The right to ask for each alone, or what another one has stored meanwhile."""
        keys, found = [step.key for step in steps], dict[str, Found | Missing]()
        if self.lease is None and not steps[0].alone:
            is_one, missing = len(keys) == 1, Missing(looked=self.looked)
            refused = steps[0].refused if is_one else None
            arguments = _key_of_all(keys), self.requests[0].wait_seconds, refused, missing
            had = yield Work(acquire, aacquire, arguments)
            self.lease = had if isinstance(had, Lease) else None
            if isinstance(had, Found):  # (of all, nothing is stored under one key)
                found = {keys[0]: had}
            elif had is None or (not is_one and (yield _in_a_thread(had.may_be_stored))):
                found = yield from _look_up(keys)
        generation = self.lease.generation if self.lease else None
        if generation is None:
            generation = yield Work(store.generation, store.ageneration)
        return [
            each if isinstance(each := found.get(key), Found) else alone(key, generation)
            for key in keys
        ]

    def _refresh_soon(self, requests: list[Renewable]) -> None:
        soon: Callable[[Any], None] = arefresh_soon if self.is_async else refresh_soon
        if _are_handed_over():  # (key by key)
            for request in requests:
                soon(request)
        else:
            soon(replace(self, requests=requests))


def _side_by_side(flows: list[Flow], carry_out: Callable[[list[int], list[Step]], Steps]) -> Steps:
    """What the flows return, each step of one kind carried out for all that want it.

    Where some raise, the others go on to their ends; then the first error is raised.
    """
    waiting: dict[int, Step] = {}
    ended: dict[int, Any] = {}
    failed: list[BaseException] = []

    def go_on(number: int, resume: Callable[[Any], Step], came: Any) -> None:
        try:
            waiting[number] = resume(came)
        except StopIteration as end:
            ended[number] = end.value
        except BaseException as error:  # noqa: BLE001 - raised in the end
            failed.append(error)

    for number, flow in enumerate(flows):
        go_on(number, flow.send, None)
    while waiting:
        kind = type(next(iter(waiting.values())))
        numbers = [number for number, step in waiting.items() if type(step) is kind]
        steps = [waiting.pop(number) for number in numbers]
        try:
            results = yield from carry_out(numbers, steps)
        except BaseException as error:  # noqa: BLE001 - the flows raise it again
            for number in numbers:
                go_on(number, flows[number].throw, error)
        else:
            for number, result in zip(numbers, results, strict=True):
                go_on(number, flows[number].send, result)
    if failed:
        raise failed[0]
    return [ended[number] for number in range(len(flows))]


def _look_up(
    keys: list[str], *, stale: bool = False
) -> Generator[Work, Any, dict[str, Found | Missing]]:
    wanted = frozenset(keys if stale else ())
    look_up = partial(store.lookup_many, stale=wanted)
    alook_up = partial(store.alookup_many, stale=wanted)
    found: dict[str, Found | Missing] = yield Work(look_up, alook_up, (keys,))
    return found


def _in_a_thread(work: Callable[[], Any]) -> Work:
    return Work(work, partial(database.arun, work))


def _are_handed_over() -> bool:
    """Whether somebody else may refresh answers, who is told their keys."""
    try:
        return settings.refresh is not None
    except ImproperlyConfigured:
        return False  # (who refreshes them says so)


def _key_of_all(keys: list[str]) -> str:
    if len(keys) == 1:
        return keys[0]
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
