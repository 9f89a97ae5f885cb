"""Law D for what is made of other answers: many store and read while somebody invalidates."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

import llmcache
from llmcache.decorators.decorator import CachedFunction
from llmcache.removal import audit
from llmcache.store.rows import tier as durable
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize(
        "backend",
        backend_parameters(ALL_DATABASES, [None]) + backend_parameters(["postgres"], ["redis"]),
        indirect=True,
    ),
]

SECONDS = 3.0
NUMBERS = 4

# What the world says of each number; and the least of it that may still be served.
world: dict[int, int] = {}
least: dict[int, int] = {}


@pytest.fixture(autouse=True)
def _world() -> Iterator[None]:
    world.update(dict.fromkeys(range(NUMBERS), 1))
    least.update(dict.fromkeys(range(NUMBERS), 0))
    yield
    world.clear()
    least.clear()


@llmcache.cached(tags=lambda number: [f"inner:{number}"])
def inner(number: int) -> int:
    value = world[number]
    time.sleep(random.uniform(0, 0.004))
    return value


@llmcache.cached(namespace="middle")
def middle(number: int) -> int:
    return inner(number)


@llmcache.cached(tags=lambda number: [f"outer:{number}"], namespace="outer")
def outer(number: int) -> int:
    value = middle(number)
    time.sleep(random.uniform(0, 0.004))
    return value


@llmcache.cached(tags=lambda number: [f"outer:{number}"])
def items(number: int) -> Iterator[int]:
    yield inner(number)


Criteria = Callable[[int], dict[str, Any]]

FUNCTIONS: list[CachedFunction[[int], Any]] = [outer, items]


def value_of(function: CachedFunction[[int], Any], number: int) -> int:
    given = function(number)
    return given if isinstance(given, int) else next(iter([*given]))


class Gate:
    """Readers hold it together, who invalidates alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._alone = True
            self._changed.wait_for(lambda: not self._readers)

    def open(self) -> None:
        with self._changed:
            self._alone = False
            self._changed.notify_all()


def read_on(until: float, gate: Gate) -> int:
    """How many answers were read, none of them older than it may be."""
    done = 0
    try:
        while time.monotonic() < until:
            number, function = random.randrange(NUMBERS), random.choice(FUNCTIONS)
            with gate.together():
                bound = least[number]
                value = value_of(function, number)
            assert value >= bound, (function, number)
            done += 1
        return done
    finally:
        connections.close_all()


def invalidate_on(until: float, criteria: Criteria, gate: Gate) -> int:
    """How often a number was invalidated, after the world had changed."""
    done = 0
    try:
        while time.monotonic() < until:
            number = random.randrange(NUMBERS)
            if is_above(criteria):
                # What is under way, or is not stored, is not known to be made of the parts.
                gate.close()
                outer(number)
            world[number] += 1
            changed = world[number]
            result = llmcache.invalidate(**criteria(number))
            assert result.pending == ()
            least[number] = changed
            done += 1
            time.sleep(random.uniform(0, 0.05))
        return done
    finally:
        gate.open()
        connections.close_all()


def is_above(criteria: Criteria) -> bool:
    return "outer:0" in criteria(0).get("tags", ())


@pytest.mark.parametrize(
    "criteria",
    [
        lambda number: {"tags": [f"inner:{number}"]},
        lambda number: {"keys": [inner.key(number)]},
        lambda number: {"tags": [f"outer:{number}"]},
    ],
    ids=["a part by tag", "a part by key", "what is made of it"],
)
def test_nothing_of_before_is_served(
    backend: Backend, criteria: Criteria, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, start = Gate(), audit.start

    def begin_and_open(*arguments: Any) -> Any:
        begun = start(*arguments)
        gate.open()
        return begun

    monkeypatch.setattr(audit, "start", begin_and_open)
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read_on, until, gate) for _ in range(6)]
        remover = pool.submit(invalidate_on, until, criteria, gate)
    assert remover.result()
    assert sum(reader.result() for reader in readers) > 10
    for number in range(NUMBERS):
        outer(number)
        llmcache.invalidate(**criteria(number))
    assert durable.entries().filter(namespace="outer").count() == 0
