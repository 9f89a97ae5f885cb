"""A mixed load: hits, misses, stores and invalidations, from threads and coroutines at once.

Each answer can be told from a wrong one, since it belongs to its question; and of each call it is
known how much of its time was not the model's.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

import llmcache
from tests.faults.children import Child, do_all
from tests.faults.model import Model, call_for, checksum, spent
from tests.faults.report import percentile
from tests.faults.sites import Site

PROCESSES = 2
THREADS = 4
COROUTINES = 4
# Between two calls of a thread or a coroutine, so that what is measured is not a lack of cores.
PAUSE_SECONDS = 0.03
MODEL_SECONDS = 0.01

POPULAR = 40
# What a worker does next, and how often of a hundred times.
MIX = {"popular": 60, "new": 24, "reload": 10, "invalidate a key": 4, "invalidate a tag": 2}

# Whoever waits longer for the cache than this was not "hardly worse than without a cache".
WORST_SECONDS = 10.0


@dataclass
class Tally:
    """What the callers saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    # Seconds that each call took beyond those of the model.
    added: list[float] = field(default_factory=list)
    removals: list[float] = field(default_factory=list)
    pending: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        return len(self.added) + len(self.removals)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.outcomes + other.outcomes,
            self.errors + other.errors,
            self.wrong + other.wrong,
            self.added + other.added,
            self.removals + other.removals,
            self.pending + other.pending,
        )

    def figures(self) -> dict[str, Any]:
        """What docs/faults.md says of it; times in milliseconds."""
        return {
            "calls": self.calls,
            "errors": self.errors.total(),
            "wrong": len(self.wrong),
            "p50": percentile(self.added, 50) * 1000,
            "p99": percentile(self.added, 99) * 1000,
            "max": max(self.added, default=0.0) * 1000,
            "outcomes": dict(self.outcomes),
            "pending": dict(self.pending),
        }

    def check(self) -> None:
        """Nobody saw an error, a wrong answer, or stood still."""
        assert not self.errors, self.errors
        assert not self.wrong, self.wrong[:5]
        assert self.calls
        assert max(self.added, default=0.0) < WORST_SECONDS, self.figures()


class Load:
    """Processes that put a load on a site, whenever they are told to."""

    def __init__(self, site: Site) -> None:
        self._children = [Child(site, put, seed=number) for number in range(PROCESSES)]
        do_all(self._children)

    @contextmanager
    def __call__(self) -> Iterator[Tally]:
        """Put it on while the block runs. The tally is complete when the block has ended."""
        tally = Tally()
        for child in self._children:
            child.tell("go")
        try:
            yield tally
        finally:
            for child in self._children:
                child.tell("stop")
            for part in do_all(self._children):
                vars(tally).update(vars(tally + part))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.close()


def put(line: Connection, *, seed: int) -> None:
    """A task: put a load on between "go" and "stop", and say what came of it."""
    dice = random.Random(seed)
    _warm_up()
    line.send("ready")
    for number in iter(lambda: dice.random() if line.recv() == "go" else None, None):
        stop = threading.Event()
        done: list[Tally] = []
        workers = list(_start_workers(f"{seed}/{number}", stop, done))
        assert line.recv() == "stop"
        stop.set()
        for worker in workers:
            worker.join()
        line.send(sum(done, Tally()))


def _start_workers(
    name: str, stop: threading.Event, done: list[Tally]
) -> Iterator[threading.Thread]:
    for number in range(THREADS):
        yield _started(lambda n=number: _call(Worker(f"{name}/{n}"), stop, done))
    acalls = [Worker(f"{name}/a{number}", is_async=True) for number in range(COROUTINES)]
    yield _started(lambda: asyncio.run(_acall_all(acalls, stop, done)))


def _warm_up() -> None:
    """What is imported at the first call is no fault of a server, and the popular are known."""
    client = Model().client()
    for number in range(POPULAR):
        client.create(**_popular(number))


def _popular(number: int) -> dict[str, Any]:
    return call_for(f"popular {number}", cache_tags=[f"tag {number % 8}"])


def _started(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _call(worker: Worker, stop: threading.Event, done: list[Tally]) -> None:
    while not stop.wait(worker.pause()):
        with worker.measured() as step:
            worker.note(step, _carry_out(step, worker.client))
    done.append(worker.tally)


async def _acall_all(workers: Iterable[Worker], stop: threading.Event, done: list[Tally]) -> None:
    await asyncio.gather(*(_acall(worker, stop, done) for worker in workers))


async def _acall(worker: Worker, stop: threading.Event, done: list[Tally]) -> None:
    while not stop.is_set():
        await asyncio.sleep(worker.pause())
        with worker.measured() as step:
            worker.note(step, await _acarry_out(step, worker.client))
    done.append(worker.tally)


@dataclass(frozen=True)
class Step:
    """A call of `create`, or of `invalidate`."""

    create: dict[str, Any] | None = None
    invalidate: dict[str, Any] | None = None


def _carry_out(step: Step, client: Any) -> Any:
    if step.create is not None:
        return client.create(**step.create)
    return llmcache.invalidate(**(step.invalidate or {}))


async def _acarry_out(step: Step, client: Any) -> Any:
    if step.create is not None:
        return await client.create(**step.create)
    return await llmcache.ainvalidate(**(step.invalidate or {}))


class Worker:
    """A thread or a coroutine that makes one call after the other."""

    def __init__(self, name: str, *, is_async: bool = False) -> None:
        self.client = Model(latency=MODEL_SECONDS).client(is_async=is_async)
        self.tally = Tally()
        self._name = name
        self._dice = random.Random(name)
        self._made = 0

    def pause(self) -> float:
        return self._dice.uniform(0, 2 * PAUSE_SECONDS)

    @contextmanager
    def measured(self) -> Iterator[Step]:
        """The next step; what it raises is an error that a caller saw."""
        step, times = self._next(), list[float]()
        token = spent.set(times)
        started = time.perf_counter()
        try:
            with llmcache.capture() as calls:
                yield step
        except Exception as error:  # noqa: BLE001 - counted
            self.tally.errors[repr(error)] += 1
        finally:
            spent.reset(token)
        seconds = time.perf_counter() - started - sum(times)
        (self.tally.added if step.create else self.tally.removals).append(seconds)
        self.tally.outcomes.update(
            f"{call.outcome} {call.tier}" if call.tier else str(call.outcome) for call in calls
        )

    def note(self, step: Step, result: Any) -> None:
        if step.create is None:
            self.tally.pending.update(map(str, result.pending))
            return
        question = step.create["messages"][-1]["content"]
        if (result.question, result.number) != (question, checksum(question)):
            self.tally.wrong.append(f"{question} -> {result!r}")

    def _next(self) -> Step:
        [kind] = self._dice.choices(list(MIX), list(MIX.values()))
        number = self._dice.randrange(POPULAR)
        popular = _popular(number)
        if kind == "new":
            self._made += 1
            return Step(call_for(f"{self._name} {self._made}", cache_tags=["new"]))
        if kind == "reload":
            return Step({**popular, "cache_mode": "reload"})
        if kind == "invalidate a key":
            return Step(invalidate={"keys": [llmcache.key_for(self.client, **popular)]})
        if kind == "invalidate a tag":
            return Step(invalidate={"tags": popular["cache_tags"]})
        return Step(popular)
