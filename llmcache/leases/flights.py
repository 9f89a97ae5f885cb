"""The callers of one process who want the same answer: one leads, the others follow."""

from __future__ import annotations

import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from enum import Enum
from typing import Final

from llmcache.background.forks import lock, now_and_in_children
from llmcache.store.records import Found


class Ending(Enum):
    """What became of a question that somebody asked for all."""

    STORED = "the answer is stored"
    #: The call failed, or its answer is not to be stored: each asks for itself.
    RELEASED = "there is nothing to share"
    #: The caller went away before the answer came (it was cancelled, say): another one takes over.
    ABANDONED = "nobody is asking any more"


class Flight:
    """One question on its way. The leader ends it; the followers wait for that."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.ending: Ending | None = None
        #: Whether somebody has waited for it for as long as he may.
        self.is_given_up = False
        #: The stored answer, where it is at hand: it need not be looked up again.
        self.found: Found | None = None
        #: Is done when the flight has ended.
        self.over: Future[None] = Future()
        self.over.set_running_or_notify_cancel()  # (a follower who is cancelled cancels himself)
        self._settled = 0.0

    def settle(self) -> None:
        """From here on it is being read, or stored, what `end` will be told.

        It may be invalidated before `end` comes: it is not for who begins after this.
        """
        self._settled = time.monotonic()

    def serves(self, joined: float) -> bool:
        """Whether how it ended is for a follower who has joined at that moment (monotonic)."""
        if self.ending is Ending.ABANDONED:
            return False
        return self.found is None or joined < self._settled

    def end(self, ending: Ending, found: Found | None = None) -> None:
        """Let the followers go."""
        with _lock:
            self._make_room()
            self.found, self.ending = found, ending
        with suppress(InvalidStateError):  # it had ended before
            self.over.set_result(None)

    def give_up(self) -> None:
        """Have another one lead the next: a signal may have ended the leader before it could `end`.

        Those who wait for it go on waiting.
        """
        with _lock:
            self._make_room()
            self.is_given_up = True

    def _make_room(self) -> None:
        if _flights.get(self.key) is self:
            del _flights[self.key]


def join(key: str) -> tuple[Flight, bool]:
    """The flight for `key`, and whether the caller leads it."""
    with _lock:
        flight = _flights.get(key)
        if flight is not None:
            return flight, False
        flight = _flights[key] = Flight(key)
        return flight, True


_lock: Final = lock()
_flights: Final[dict[str, Flight]] = {}
now_and_in_children(_flights.clear)  # (who leads in a forked child is the parent's caller)
