"""Takes the times, in rounds, and sees to it that what is measured are hits.

In each round every row has a turn, in an order that is drawn anew: what slows the machine down
for a while slows all rows down, and no row always follows the same one.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil
from django.conf import settings
from pydantic import BaseModel

import llmcache
from llmcache.background import database
from llmcache.usage import hits
from tests.benchmarks.rows import Ask, Bench, Row, is_async

# Before each turn, and not counted: the caches of the CPU still hold what the last row used.
WARM_UP_CALLS = 10
THREADS = (1, 8)
THREAD_SECONDS = 0.3
COROUTINES = 1000
PEER_ATTEMPTS = 4


class NotAHit(RuntimeError):
    """A row did something else than to answer from its cache: its times would mean nothing."""


@dataclass
class Subject:
    """A row that is ready, and its times in nanoseconds: a list for each round."""

    row: Row
    ask: Ask
    answer: Any
    turns: list[list[int]] = field(default_factory=list)
    #: Calls a second with so many threads, or coroutines, at once.
    per_second: dict[int, list[float]] = field(default_factory=dict)
    #: The longest time that a loop with so many coroutines stood still, in nanoseconds.
    stills: list[float] = field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """The median of each round."""
        return [median(turn) for turn in self.turns]

    def percentile(self, percent: float) -> int:
        """Over all rounds, by nearest rank."""
        times = sorted(time for turn in self.turns for time in turn)
        return times[math.ceil(len(times) * percent / 100) - 1]


class Measurement:
    """Measures `rows`; used as a context, since asynchronous rows need one event loop for all."""

    def __init__(self, rows: Sequence[Row], bench: Bench) -> None:
        self.bench = bench
        self._loop = asyncio.Runner()
        self.subjects = [self._subject(row) for row in rows]

    def run(self, rounds: int, calls: int, tell: Callable[[int], None]) -> list[Subject]:
        """`rounds` of `calls` for each row, after one that does not count."""
        with on_one_core():
            for number in range(rounds + 1):
                tell(number)
                for subject in random.sample(self.subjects, len(self.subjects)):
                    times = self._turn_of_hits(subject, calls)
                    if number > 0:
                        subject.turns.append(times)
        return self.subjects

    def run_at_once(self, rounds: int) -> None:
        """Calls a second, with many at once."""
        for _ in range(rounds):
            for subject in random.sample(self.subjects, len(self.subjects)):
                gc.collect()
                with llmcache_settings(subject.row):
                    self._check(subject)
                    self._at_once(subject)
                    hits.flush()

    def _at_once(self, subject: Subject) -> None:
        if is_async(subject.ask):
            with self._hits_alone(subject, COROUTINES) as rates:
                rate, still = self._loop.run(of_coroutines(subject.ask))
                rates.append(rate)
                subject.stills.append(still)
            return
        for threads in THREADS:
            with self._hits_alone(subject, threads) as rates:
                rates.append(of_threads(subject.ask, threads))

    @contextmanager
    def _hits_alone(self, subject: Subject, at_once: int) -> Iterator[list[float]]:
        """The rates of a row; of a peer that asks the model when many ask it, there are none."""
        before, rates = len(self.bench.standin.calls), list[float]()
        yield rates
        if asked := len(self.bench.standin.calls) - before:
            if subject.row.tier:
                raise NotAHit(f"{subject.row.name}: the model was asked {asked} times")
            return
        subject.per_second.setdefault(at_once, []).extend(rates)

    def close(self) -> None:
        self._loop.close()

    def _subject(self, row: Row) -> Subject:
        with llmcache_settings(row):
            ask = row.prepare(self.bench)
            answer = content(self._ask_once(ask))
            database.finish()  # the hot copy is made behind the call
            return Subject(row, ask, answer)

    def _turn_of_hits(self, subject: Subject, calls: int) -> list[int]:
        """A turn; of a peer, which now and then asks the model all the same, one of hits alone."""
        for _ in range(0 if subject.row.tier else PEER_ATTEMPTS):
            with suppress(NotAHit):
                return self._turn(subject, calls)
        return self._turn(subject, calls)

    def _turn(self, subject: Subject, calls: int) -> list[int]:
        # Collected now, the garbage of other rows is not collected on this one's time. Its own is.
        gc.collect()
        with llmcache_settings(subject.row), self._nobody_asked(subject.row):
            for _ in range(WARM_UP_CALLS):
                self._check(subject)
            times = self._timed(subject.ask, calls)
            self._check(subject)
            # Else they would be written two seconds later, during the turn of another row.
            hits.flush()
        return times

    def _timed(self, ask: Ask, calls: int) -> list[int]:
        return self._loop.run(atimed(ask, calls)) if is_async(ask) else timed(ask, calls)

    def _ask_once(self, ask: Ask) -> Any:
        # In this context, so that `capture` sees the calls of a coroutine too.
        return self._loop.run(ask(), context=copy_context()) if is_async(ask) else ask()

    def _check(self, subject: Subject) -> None:
        """One call that is not measured: is it a hit, and the right answer?"""
        expected = [("hit", subject.row.tier)] if subject.row.tier else []
        with llmcache.capture() as calls:
            answer = self._ask_once(subject.ask)
        if [(call.outcome, call.tier) for call in calls] != expected:
            raise NotAHit(f"{subject.row.name}: {calls}, not {expected}")
        if content(answer) != subject.answer:
            raise NotAHit(f"{subject.row.name}: {answer!r}, not {subject.answer!r}")

    @contextmanager
    def _nobody_asked(self, row: Row) -> Iterator[None]:
        before = len(self.bench.standin.calls)
        yield
        if asked := len(self.bench.standin.calls) - before:
            raise NotAHit(f"{row.name}: the model was asked {asked} times")


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process and its servers on one core.

    Else a call sometimes waits for a core that sleeps and sometimes not, as the kernel sees fit,
    which takes longer than what is measured.
    """
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    cores = own.cpu_affinity()
    try:
        for process in processes:
            with suppress(psutil.Error):
                process.cpu_affinity(cores[:1])
        yield
    finally:
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error):
                process.cpu_affinity(cores)


@contextmanager
def llmcache_settings(row: Row) -> Iterator[None]:
    settings.LLMCACHE = row.settings  # read at each access, by every thread
    yield
    del settings.LLMCACHE


def content(answer: Any) -> Any:
    """What can be compared: instructor derives a new class for each answer."""
    return answer.model_dump() if isinstance(answer, BaseModel) else answer


def of_threads(ask: Ask, threads: int) -> float:
    """Calls a second of so many threads."""
    ends = time.perf_counter() + THREAD_SECONDS

    def call(_: int) -> int:
        calls = 0
        while time.perf_counter() < ends:
            ask()
            calls += 1
        return calls

    started = time.perf_counter()
    if threads == 1:
        return call(0) / (time.perf_counter() - started)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(call, range(threads))) / (time.perf_counter() - started)


async def of_coroutines(ask: Ask) -> tuple[float, float]:
    """Calls a second of `COROUTINES` at once, and for how long another task waited meanwhile."""
    stills: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            stills.append((time.perf_counter() - before) * 1e9)

    coroutines = [ask() for _ in range(COROUTINES)]
    watching = asyncio.ensure_future(watch())
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*tasks)
    rate = COROUTINES / (time.perf_counter() - started)
    watching.cancel()
    return rate, max(stills, default=0.0)


def timed(ask: Ask, calls: int) -> list[int]:
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        started = clock()
        ask()
        times.append(clock() - started)
    return times


async def atimed(ask: Ask, calls: int) -> list[int]:
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        started = clock()
        await ask()
        times.append(clock() - started)
    return times
