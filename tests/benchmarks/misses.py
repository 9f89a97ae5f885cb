"""What a miss adds to the call that it has to make anyway, with rows in PostgreSQL and Redis."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import instructor
from django.conf import settings

import llmcache
from llmcache.background import database
from tests.benchmarks.rows import Bench

MISSES = {"CACHE": "redis", "DATABASE": "postgres", "NAMESPACE": "misses"}
CALLS = 40


@dataclass
class Misses:
    """Times of the rounds in milliseconds: of calls past any cache, and of misses."""

    bare: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)

    @property
    def adds(self) -> float:
        return median(one - other for one, other in zip(self.missed, self.bare, strict=True))


def measure(bench: Bench, rounds: int) -> Misses:
    """`rounds` of `CALLS`, each with a question that was never asked; the first does not count."""
    misses = Misses()
    bare, cached = bench.client(instructor.from_provider), bench.client(llmcache.from_provider)
    settings.LLMCACHE = MISSES
    for number in range(rounds + 1):
        # (the stand-in answers in its own time, the same for both)
        for times, client in ((misses.bare, bare), (misses.missed, cached)):
            gc.collect()
            took = _asked(bench, client.create, f"{number}")
            if number:
                times.append(took)
    del settings.LLMCACHE
    return misses


def _asked(bench: Bench, create: Callable[..., Any], mark: str) -> float:
    times = []
    for number in range(CALLS):
        messages = [*bench.question.messages]
        messages[-1] = messages[-1] | {"content": f"{bench.question.text} ({mark}/{number})"}
        started = time.perf_counter()
        create(response_model=bench.question.response_model, messages=messages)
        times.append((time.perf_counter() - started) * 1000)
        # The lease is given back, and the hot copy made, behind the caller, who has seconds to wait
        # for the next model: not during the next call of this loop.
        database.finish()
    return median(times)
