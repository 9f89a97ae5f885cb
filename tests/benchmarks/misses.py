"""What a miss adds to the call that it has to make anyway, with rows in PostgreSQL and Redis."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import instructor
import openai
from django.conf import settings

import llmcache
from llmcache.background import database
from tests.benchmarks.question import MODEL
from tests.benchmarks.rows import Bench

MISSES = {"CACHE": "redis", "DATABASE": "postgres", "NAMESPACE": "misses"}
CALLS = 40

Messages = list[dict[str, str]]
#: Asks, and returns what is still to come of the answer, which is not timed.
Ask = Callable[[Messages], Iterable[object]]


@dataclass
class Misses:
    """Times of the rounds in milliseconds: of calls past any cache, and of misses."""

    text: str
    bound: float
    bare: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)

    @property
    def adds(self) -> float:
        return median(one - other for one, other in zip(self.missed, self.bare, strict=True))


def measure(bench: Bench, rounds: int) -> list[Misses]:
    """`rounds` of `CALLS`, each with a question that was never asked; the first does not count."""
    measured = [(Misses(text, bound), *asks) for text, bound, asks in _asks(bench)]
    settings.LLMCACHE = MISSES
    for number in range(rounds + 1):
        for misses, bare, cached in measured:
            # (the stand-in answers in its own time, the same for both)
            for times, ask in ((misses.bare, bare), (misses.missed, cached)):
                gc.collect()
                took = _took(bench, ask, f"{misses.text}/{number}")
                if number:
                    times.append(took)
    del settings.LLMCACHE
    return [misses for misses, _, _ in measured]


def _asks(bench: Bench) -> list[tuple[str, float, tuple[Ask, Ask]]]:
    """What is measured, how many milliseconds it may take, and who asks past any cache and not."""
    instructors = bench.client(instructor.from_provider), bench.client(llmcache.from_provider)
    sdk = openai.OpenAI(base_url=bench.standin.url, api_key="any")
    sdks = sdk, llmcache.wrap(sdk)
    bare, cached = (partial(_structured, client, bench) for client in instructors)
    whole, cached_whole = (partial(_whole, client) for client in sdks)
    stream, cached_stream = (partial(_first_event, client) for client in sdks)
    return [
        ("a miss adds to the bare call", 3, (bare, cached)),
        ("openai's SDK over HTTP: a miss adds to the bare call", 3, (whole, cached_whole)),
        ("openai's SDK over HTTP: the first event of a stream is late", 1, (stream, cached_stream)),
    ]


def _structured(client: Any, bench: Bench, messages: Messages) -> Iterable[object]:
    client.create(response_model=bench.question.response_model, messages=messages)
    return ()


def _whole(client: openai.OpenAI, messages: Any) -> Iterable[object]:
    client.chat.completions.create(model=MODEL.partition("/")[2], messages=messages)
    return ()


def _first_event(client: openai.OpenAI, messages: Any) -> Iterable[object]:
    stream = client.chat.completions.create(
        model=MODEL.partition("/")[2], messages=messages, stream=True
    )
    next(stream)
    return stream


def _took(bench: Bench, ask: Ask, mark: str) -> float:
    """Milliseconds, the median of `CALLS`."""
    times = []
    for number in range(CALLS):
        messages = [*bench.question.messages]
        messages[-1] = messages[-1] | {"content": f"{bench.question.text} ({mark}/{number})"}
        started = time.perf_counter()
        rest = ask(messages)
        times.append((time.perf_counter() - started) * 1000)
        for _ in rest:
            pass
        # The lease is given back, and the hot copy made, behind the caller, who has seconds to wait
        # for the next model: not during the next call of this loop.
        database.finish()
    return median(times)
