"""Taking turns on an event loop: of a thousand calls that begin at once, some begin in each turn.

What a call does before it has to wait for anything takes some tens of microseconds. A thousand of
them in one turn of the loop would let everything else stand still for as long as all take together.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Final

from llmcache.background.database import running_loop

# Calls that begin in one turn take no longer than this, in seconds.
SLICE_SECONDS: Final = 0.0005
# Of those who have to wait, so many begin in each of the next turns.
BEGIN_PER_TURN: Final = 16


class _Turns(threading.local):
    """Of the loop that runs on this thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.began = 0.0
        self.waiting: deque[asyncio.Future[None]] = deque()
        # Whether who runs now has taken its turn already.
        self.taken = False


_turns = _Turns()


async def take_turn() -> None:
    """Return at once, or in one of the next turns of the loop when this one was long enough.

    Who has called `take_first_turn`, and has not waited since, has taken it.
    """
    if _turns.taken:
        _turns.taken = False
    else:
        await _take_turn()


async def take_first_turn() -> None:
    """`take_turn` for who comes before one that takes its turn as well."""
    await _take_turn()
    _turns.taken = True


async def _take_turn() -> None:
    loop = running_loop()
    if _turns.loop is not loop:
        # The first call of this turn (another loop that ran on this thread is over).
        _turns.loop, _turns.began, _turns.waiting = loop, time.perf_counter(), deque()
        loop.call_soon(_next_turn, loop)
    elif _turns.waiting or time.perf_counter() - _turns.began > SLICE_SECONDS:
        future = loop.create_future()
        _turns.waiting.append(future)
        await future


def _next_turn(loop: asyncio.AbstractEventLoop) -> None:
    if _turns.loop is not loop:
        return
    for _ in range(min(BEGIN_PER_TURN, len(_turns.waiting))):
        future = _turns.waiting.popleft()
        if not future.done():
            future.set_result(None)
    if _turns.waiting:
        _turns.began = time.perf_counter()
        loop.call_soon(_next_turn, loop)
    else:
        _turns.loop = None
