"""A new answer behind a caller who was served a stale one (``stale-while-revalidate`` of RFC 5861).

Exactly one refreshes: whoever gets the lease for the key. That is a thread of this process, or a
task of the caller's event loop; or whoever is told the key by ``LLMCACHE["REFRESH"]``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from django.db import connections

from llmcache.conf import settings
from llmcache.discretion import without_content
from llmcache.flow.steps import Request
from llmcache.leases import Ending, Flight, Lease, alead, lead, start
from llmcache.policy import taken_along

logger = logging.getLogger("llmcache")

# What was handed over is not handed over again for `LEASE_SECONDS`; so many keys are remembered.
MOST_HANDED_OVER: Final = 10_000

_handed_over: dict[str, float] = {}
# Nobody else refers to a task, and it may be collected before it is done.
_tasks: set[asyncio.Task[None]] = set()


def refresh_soon(request: Request) -> None:
    """Have the answer refreshed on another thread, unless somebody is at it. Raises nothing."""
    with _begun(request.call.key) as flight:
        if flight is not None:
            # (a function that is called anew calls others in the same namespace)
            work = taken_along(partial(_refresh, flight, request.again()))
            threading.Thread(target=work, name="llmcache refresh", daemon=True).start()


def arefresh_soon(request: Request) -> None:
    """Have the answer refreshed by a task of this event loop. Raises nothing."""
    with _begun(request.call.key) as flight:
        if flight is not None:
            task = asyncio.get_running_loop().create_task(_arefresh(flight, request.again()))
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)


@contextmanager
def _begun(key: str) -> Iterator[Flight | None]:
    """The flight for `key`; None where somebody is at it, or was told a moment ago."""
    with _reported(key):
        since = _handed_over.get(key)
        was_told = since is not None and time.monotonic() - since < settings.lease_seconds
        flight = None if was_told else start(key)
        with _ended(flight):
            yield flight


def _refresh(flight: Flight, again: Callable[[Lease], Any]) -> None:
    with _reported(flight.key):
        try:
            with _ended(flight):
                lease = None if _hand_over(flight) else lead(flight)
            if isinstance(lease, Lease):
                again(lease)
        finally:
            # What hooks and validators have opened on this thread, nobody else would close.
            connections.close_all()


async def _arefresh(flight: Flight, again: Callable[[Lease], Any]) -> None:
    with _reported(flight.key):
        with _ended(flight):
            is_handed_over = await asyncio.to_thread(_hand_over, flight)
            lease = None if is_handed_over else await alead(flight)
        if isinstance(lease, Lease):
            await again(lease)


def _hand_over(flight: Flight) -> bool:
    """Whether somebody else was told to refresh it, and will."""
    try:
        hand_over = settings.refresh
        taken = hand_over is not None and bool(hand_over(flight.key))
    except Exception as error:  # noqa: BLE001 - then it is done here
        why = without_content(error)
        logger.warning("llmcache: a refresh could not be handed over: %s", why)
        return False
    if taken:
        if len(_handed_over) >= MOST_HANDED_OVER:
            _handed_over.clear()
        _handed_over[flight.key] = time.monotonic()
        flight.end(Ending.ABANDONED)
    return taken


@contextmanager
def _ended(flight: Flight | None) -> Iterator[None]:
    """Those who wait for the flight do not wait for one that has failed to begin."""
    try:
        yield
    except BaseException:
        if flight is not None:
            flight.end(Ending.ABANDONED)
        raise


@contextmanager
def _reported(key: str) -> Iterator[None]:
    """The caller has an answer: what goes wrong with a newer one is written down."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - law A
        why = without_content(error)
        logger.warning("llmcache: the stale answer under %s was not refreshed: %s", key, why)
