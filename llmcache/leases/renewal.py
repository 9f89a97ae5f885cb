"""Keeping leases alive while their holders ask: one thread of the process renews all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from llmcache.background.pool import start_thread
from llmcache.conf import settings

# A lease may miss its renewal twice before it is lost.
RENEWALS: Final = 3

Renew = Callable[[], object]


class Renewal:
    """The leases that are held, and the thread that is there while there are some."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, Renew] = {}
        self._thread: threading.Thread | None = None

    def keep(self, token: str, renew: Renew) -> None:
        """Call `renew` again and again, until `forget`."""
        with self._changed:
            self._held[token] = renew
            if self._thread is None:
                # (without one, it lasts for `LEASE_SECONDS`)
                self._thread = start_thread(self._renew_all, "leases")

    def forget(self, token: str) -> None:
        with self._changed:
            self._held.pop(token, None)

    def _renew_all(self) -> None:
        while held := self._after_a_pause():
            for token, renew in held:
                if token in self._held:
                    renew()

    def _after_a_pause(self) -> list[tuple[str, Renew]]:
        with self._changed:
            self._changed.wait(settings.lease_seconds / RENEWALS)
            if not self._held:
                self._thread = None
            return list(self._held.items())


_renewal: Renewal


def keep(token: str, renew: Renew) -> None:
    """Call `renew` again and again, until `forget`; it must not raise."""
    _renewal.keep(token, renew)


def forget(token: str) -> None:
    _renewal.forget(token)


def _start_anew() -> None:
    """At the start, and in a forked child: what the parent holds is not the child's."""
    global _renewal
    _renewal = Renewal()


_start_anew()
os.register_at_fork(after_in_child=_start_anew)
