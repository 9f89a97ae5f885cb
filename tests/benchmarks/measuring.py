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
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from django.conf import settings
from pydantic import BaseModel

import llmcache
from llmcache.store import hits
from tests.benchmarks.rows import Ask, Bench, Row, is_async

# Before each turn, and not counted: the caches of the CPU still hold what the last row used.
WARM_UP_CALLS = 10


class NotAHit(RuntimeError):
    """A row did something else than to answer from its cache: its times would mean nothing."""


@dataclass
class Subject:
    """A row that is ready, and its times in nanoseconds: a list for each round."""

    row: Row
    ask: Ask
    answer: Any
    turns: list[list[int]] = field(default_factory=list)

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
        for number in range(rounds + 1):
            tell(number)
            for subject in random.sample(self.subjects, len(self.subjects)):
                times = self._turn(subject, calls)
                if number > 0:
                    subject.turns.append(times)
        return self.subjects

    def close(self) -> None:
        self._loop.close()

    def _subject(self, row: Row) -> Subject:
        with llmcache_settings(row):
            ask = row.prepare(self.bench)
            return Subject(row, ask, content(self._ask_once(ask)))

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
def llmcache_settings(row: Row) -> Iterator[None]:
    settings.LLMCACHE = row.settings  # read at each access, by every thread
    yield
    del settings.LLMCACHE


def content(answer: Any) -> Any:
    """What can be compared: instructor derives a new class for each answer."""
    return answer.model_dump() if isinstance(answer, BaseModel) else answer


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
