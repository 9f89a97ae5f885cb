"""Whether a tier is worth asking: after some failures in a row its circuit is open.

A breaker is closed while the tier does its work. `FAILURES` failures in a row open it, and from
then on the tier is skipped at once, until a probe has found it well again. (The failures of
callers who asked at the same moment are one: a moment's trouble opens no circuit.) The first
probe is due after `FIRST_PAUSE` seconds; each that fails doubles the pause, up to `LONGEST_PAUSE`.

What a tier is used for has breakers of its own: a database that has become read-only, or whose
disk is full, is still read.

Nobody who asks waits for a lock: while a tier works, a breaker only reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from llmcache.outcomes import Tier

# (each may have cost its caller the whole timeout)
FAILURES: Final = 3
# Seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0


class State(StrEnum):
    """Closed: the tier is asked. Open: it is skipped. Half-open: so, and it is being tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Use(StrEnum):
    """What a tier is asked for."""

    READ = "read"
    WRITE = "write"


class CircuitOpen(Exception):
    """The tier kept failing, and is not asked until it has been found well again."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(f"the circuit of the {tier} tier is open")


class Breaker:
    """The state of one use of a tier, as this process sees it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        #: To be read by anyone, and set here alone.
        self.state = State.CLOSED
        #: How many failures there were since the tier did what it was asked.
        self.in_a_row = 0
        self._pause = FIRST_PAUSE
        self._due = 0.0
        #: How many failures there were: to be given to `succeeded` or `failed` by who asks now.
        self.mark = 0
        # Up to which of them they have been counted.
        self._counted = 0
        #: What the tier failed with last; None while it is asked.
        self.error: Exception | None = None

    @property
    def is_closed(self) -> bool:
        return self.state is State.CLOSED

    @property
    def is_confirmed(self) -> bool:
        """Whether it is open and a probe has failed since: this is more than a moment's trouble."""
        return self.state is not State.CLOSED and self._pause > FIRST_PAUSE

    def succeeded(self, mark: int) -> None:
        """The tier did what was begun at `mark`.

        Only what began after the last failure says that the tier is well again. What began before
        may be older than the trouble, or only have wrapped what failed. Where none are `in_a_row`,
        it need not be told.
        """
        if self.mark == mark:
            with self._lock:
                if self.mark == mark:
                    self.in_a_row = 0

    def failed(self, error: Exception, mark: int) -> bool:
        """The tier failed at what was begun at `mark`; whether this opened the breaker.

        What began before the last failure that counted met the same trouble, and does not count.
        """
        with self._lock:
            self.mark += 1
            if self.state is not State.CLOSED or mark < self._counted:
                return False
            self._counted = self.mark
            self.in_a_row += 1
            if self.in_a_row < FAILURES:
                return False
            self._open(error, FIRST_PAUSE)
            return True

    def distrust(self, error: Exception) -> bool:
        """Open at once, also while a probe is under way; whether it was closed."""
        with self._lock:
            was = self.state
            if was is not State.OPEN:
                self._open(error, FIRST_PAUSE if was is State.CLOSED else self._pause)
            return was is State.CLOSED

    def wait(self) -> float:
        """Seconds until a probe is due; 0 or less: it is."""
        return self._due - self._clock()

    def may_probe(self) -> bool:
        """Whether the caller is to probe the tier now: one at a time, once the pause is over."""
        with self._lock:
            if self.state is not State.OPEN or self.wait() > 0:
                return False
            self.state = State.HALF_OPEN
            return True

    def probe_failed(self, error: Exception) -> None:
        """Whom `may_probe` told to found the tier as it was."""
        with self._lock:
            if self.state is State.HALF_OPEN:
                self._open(error, min(self._pause * 2, LONGEST_PAUSE))

    def probe_succeeded(self) -> bool:
        """Whom `may_probe` told to found the tier well; whether this closed the breaker."""
        with self._lock:
            if self.state is not State.HALF_OPEN:
                return False
            self.state, self.in_a_row, self.error = State.CLOSED, 0, None
            return True

    def _open(self, error: Exception, pause: float) -> None:
        self.error = error
        self._pause = pause
        self._due = self._clock() + pause
        # Last: who reads the state without the lock is to find the rest in place.
        self.state = State.OPEN


Side = tuple[Tier, Use]

SIDES: Final = tuple((tier, use) for tier in (Tier.HOT, Tier.DURABLE) for use in Use)
breakers: Final[dict[Side, Breaker]] = {side: Breaker() for side in SIDES}
_thread = threading.local()


def is_up(tier: Tier, *uses: Use) -> bool:
    """Whether `tier` is worth asking for these uses; for all, where none is named.

    (The thread that tries whether it is may always ask.)
    """
    if getattr(_thread, "tries", None) is tier:
        return True
    return all(breakers[tier, use].state is State.CLOSED for use in uses or Use)


def is_down(tier: Tier, *uses: Use) -> bool:
    """Whether the circuit of `tier` is open, and a probe has found that it has to be.

    In one of these uses; in any, where none is named.
    """
    return any(breakers[tier, use].is_confirmed for use in uses or Use)


def must_be_up(tier: Tier, *uses: Use) -> None:
    """Raise `CircuitOpen` while the circuit of `tier` is open in one of these uses."""
    if not is_up(tier, *uses):
        raise CircuitOpen(tier)


@contextmanager
def trying(tier: Tier) -> Iterator[None]:
    """Inside, this thread may ask `tier` although its circuit is open."""
    _thread.tries = tier
    try:
        yield
    finally:
        _thread.tries = None


def start_anew() -> None:
    """Close the breakers, as those of a new process are."""
    for side in SIDES:
        breakers[side] = Breaker()


class NoneIsFree(Exception):
    """Other threads of this process had all connections for too long."""
