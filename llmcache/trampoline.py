"""Generators that say what is to be done, and are sent what came of it.

So rules are written once, without I/O: `run` does what they yield on a thread, `arun` on an event
loop, and `relay` inside of another generator. (httpx does its authentication in this way.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(steps: Generator[Any, Any, T], perform: Callable[[Any], Any]) -> T:
    """What `steps` returns; `perform` does each step, and what it raises is thrown in."""
    stopped: StopIteration | None = None
    try:
        step = next(steps)
        while True:
            try:
                result = perform(step)
            except BaseException as error:  # noqa: BLE001 - the generator raises it again
                stopped = error if isinstance(error, StopIteration) else None
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    except RuntimeError as error:
        if stopped is not None and error.__cause__ is stopped:
            raise stopped from None  # no generator lets it through as it is (PEP 479)
        raise


def relay(steps: Generator[Any, Any, T], perform: Callable[[Any], Any]) -> Generator[Any, Any, T]:
    """`run` in a generator, which yields whatever the generators of `perform` do."""
    try:
        step = next(steps)
        while True:
            try:
                result = yield from perform(step)
            except BaseException as error:  # noqa: BLE001 - the generator raises it again
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


#: `run` for a coroutine, awaited: what an awaited step yields goes on to the event loop.
arun = coroutine(relay)
