"""How calls were answered: a `Call` for each, for `capture` and the signal `call_answered`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a call was answered."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    RELOAD = "reload"
    BYPASS = "bypass"


class Tier(StrEnum):
    """Which copy of an entry served a hit."""

    LOCAL = "local"
    HOT = "hot"
    DURABLE = "durable"


@dataclass(slots=True)
class Call:
    """One call of a client.

    `outcome` and `tier` compare as strings (``call.outcome == "hit"``). `tier` is None unless a
    copy was served; `key` is empty when the request has none; `reason` says in words why the
    outcome is not a plain hit or miss, and what to do about it; `stored` tells whether this call
    stored its answer (on SQLite inside a transaction: will, when that ends); `seconds` is how
    long the whole call took.
    """

    outcome: Outcome = Outcome.MISS
    tier: Tier | None = None
    key: str = ""
    namespace: str = ""
    model: str = ""
    reason: str = ""
    stored: bool = False
    seconds: float = 0.0


_captures: ContextVar[tuple[list[Call], ...]] = ContextVar("llmcache_captures", default=())


@contextmanager
def capture() -> Iterator[list[Call]]:
    """A list that fills with one `Call` for each call that is made inside the block.

    It sees the calls of this thread, and of the asyncio tasks started inside; the calls of other
    threads and other tasks it does not see. Blocks may be nested; each sees its own calls and
    those of the blocks inside.
    """
    calls: list[Call] = []
    token = _captures.set((*_captures.get(), calls))
    try:
        yield calls
    finally:
        _captures.reset(token)


def record(call: Call, started: float) -> None:
    """Show `call`, begun at `started` (`time.perf_counter`), to the captures around it."""
    call.seconds = time.perf_counter() - started
    for calls in _captures.get():
        calls.append(call)
