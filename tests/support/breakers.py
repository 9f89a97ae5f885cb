"""Breakers that are opened."""

from __future__ import annotations

from typing import Any

from llmcache.breakers import FAILURES, Breaker, State

TROUBLE = OSError("no answer")


def ask_in_vain(it: Breaker) -> bool:
    """One asks, and the tier fails; whether this opened it."""
    return it.failed(TROUBLE, it.mark)


def open_it(it: Breaker) -> None:
    for _ in range(FAILURES):
        ask_in_vain(it)
    assert it.state is State.OPEN


def fail(error: Exception) -> Any:
    raise error
