"""Lookups that are waiting for their turn are done together.

A thousand threads that ask at once, for one entry or for many, would keep the few threads that read
rows busy for a second. What has not begun when one of these becomes free is one query. Nobody is
given what was read before it asked: that might have been removed in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """Keys to be looked up by one call of `read`, which `submit` has done on another thread."""

    def __init__(
        self,
        read: Callable[[Collection[K]], Mapping[K, V]],
        submit: Callable[[Callable[[], None]], object],
        most: int,
    ) -> None:
        """`most`: so many keys are looked up by one call."""
        self._read = read
        self._submit = submit
        self._most = most
        self.start_anew()

    def start_anew(self) -> None:
        """At the start, and in a forked child: who waits there is the parent's caller."""
        # (held twice where no thread can be had, and `submit` reads at once)
        self._lock = threading.RLock()
        self._waiting: dict[K, Future[V | None]] = {}

    def look_up(self, key: K) -> Future[V | None]:
        """What is read under `key` from now on, or None. Others may wait for it as well."""
        with self._lock:
            future = self._waiting.get(key)
            if future is None:
                future = self._waiting[key] = Future()
                if len(self._waiting) % self._most == 1 % self._most:
                    try:
                        self._submit(self._read_those_who_wait)
                    except BaseException:
                        del self._waiting[key]
                        raise
            return future

    def _read_those_who_wait(self) -> None:
        with self._lock:
            some = dict(list(self._waiting.items())[: self._most])
            for key in some:
                del self._waiting[key]
        try:
            found = self._read(some.keys())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it has it raised
            for future in some.values():
                future.set_exception(error)
        else:
            for key, future in some.items():
                future.set_result(found.get(key))
