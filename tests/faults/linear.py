"""Workers whose answers say when they were asked for, so that one that comes too late is seen."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any

import llmcache
from tests.faults.model import Model, call_for

QUESTIONS = 24
TAGS = 6
# How many of a thousand operations invalidate a key, and a tag.
KEYS_REllmcache = 30
TAGS_REllmcache = 10


@dataclass(frozen=True)
class Read:
    """A call of `create`: when it began, and when what it returned was asked for."""

    question: int
    began: int
    asked: int


@dataclass(frozen=True)
class Removal:
    """A call of `invalidate` that returned with nothing pending."""

    questions: tuple[int, ...]
    began: int
    ended: int


@dataclass
class Log:
    """What was done. Moments are of the machine's monotonic clock, in nanoseconds."""

    reads: list[Read] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    pending: int = 0

    def __add__(self, other: Log) -> Log:
        return Log(
            self.reads + other.reads,
            self.removals + other.removals,
            self.pending + other.pending,
        )

    @property
    def operations(self) -> int:
        return len(self.reads) + len(self.removals) + self.pending


def too_old(log: Log) -> Iterator[Read]:
    """Reads that began after an invalidation had returned, and gave what was asked before it."""
    removals: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for removal in sorted(log.removals, key=lambda removal: removal.ended):
        for question in removal.questions:
            removals[question].append((removal.ended, removal.began))
    ended = {question: [end for end, _ in pairs] for question, pairs in removals.items()}
    newest = {
        question: list(accumulate((began for _, began in pairs), max))
        for question, pairs in removals.items()
    }
    for read in log.reads:
        before = bisect(ended.get(read.question, []), read.began)
        if before and read.asked < newest[read.question][before - 1]:
            yield read


def work(line: Connection, *, seed: int, operations: int) -> Log:
    """A task: a thread and a coroutine, which do half of the operations each."""
    log = Log()
    workers = [Worker(f"{seed}/{kind}", is_async=kind == "coroutine") for kind in KINDS]
    line.send("ready")
    line.recv()
    thread = threading.Thread(target=workers[0].work, args=(operations // 2, log))
    thread.start()
    asyncio.run(workers[1].awork(operations // 2, log))
    thread.join()
    return log


KINDS = ("thread", "coroutine")


class Worker:
    def __init__(self, name: str, *, is_async: bool) -> None:
        self._client = Model(lambda _: time.monotonic_ns()).client(is_async=is_async)
        self._dice = random.Random(name)

    def work(self, operations: int, log: Log) -> None:
        for question, removal in self._steps(operations):
            began = time.monotonic_ns()
            if removal is None:
                answer = self._client.create(**_call(question))
                log.reads.append(Read(question, began, answer.number))
            else:
                self._note(log, question, removal, began, llmcache.invalidate(**removal))

    async def awork(self, operations: int, log: Log) -> None:
        for question, removal in self._steps(operations):
            began = time.monotonic_ns()
            if removal is None:
                answer = await self._client.create(**_call(question))
                log.reads.append(Read(question, began, answer.number))
            else:
                self._note(log, question, removal, began, await llmcache.ainvalidate(**removal))

    def _steps(self, operations: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """A question, and None to ask it, or the arguments to invalidate it."""
        for _ in range(operations):
            question, chance = self._dice.randrange(QUESTIONS), self._dice.randrange(1000)
            if chance < TAGS_REllmcache:
                yield question, {"tags": [_tag(question)]}
            elif chance < TAGS_REllmcache + KEYS_REllmcache:
                yield question, {"keys": [llmcache.key_for(self._client, **_call(question))]}
            else:
                yield question, None

    def _note(
        self, log: Log, question: int, removal: dict[str, Any], began: int, result: Any
    ) -> None:
        if result.pending:
            log.pending += 1
            return
        questions = list(_tagged(question)) if "tags" in removal else [question]
        log.removals.append(Removal(tuple(questions), began, time.monotonic_ns()))


def _call(question: int) -> dict[str, Any]:
    return call_for(f"question {question}", cache_tags=[_tag(question)])


def _tag(question: int) -> str:
    return f"linear {question % TAGS}"


def _tagged(question: int) -> Iterable[int]:
    return range(question % TAGS, QUESTIONS, TAGS)
