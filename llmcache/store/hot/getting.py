"""The connections to one server of Redis, kept at hand between two questions (see `direct`)."""

from __future__ import annotations

from asyncio import get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from redis import ConnectionError as RedisConnectionError

from llmcache.store.hot import epochs
from llmcache.store.hot.event_loop import LoopLine
from llmcache.store.hot.sockets import Line, SocketLine, line_on

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from redis import ConnectionPool


class Direct:
    """The lines at hand to one server, each used by one thread at a time.

    Each has the epoch in which its connection was checked, and is used in no other.
    """

    def __init__(self, pool: ConnectionPool, start: bytes) -> None:
        """`start`: what the server puts before a key of the backend."""
        self._pool = pool
        self._start = start
        self._at_hand: deque[Line] = deque()
        self._on_loops: WeakKeyDictionary[Any, LoopLine] = WeakKeyDictionary()

    def get(self, key: str) -> bytes | None:
        """The copy of the entry `key`, or None. Raises what redis-py raises."""
        try:
            line = self._at_hand.pop()
        except IndexError:
            line = self._new_line()
            return self._ask(line, line.question(key))
        if line.epoch is not epochs.current:
            self._give_back(line)
            line = self._new_line()
        try:
            return self._ask(line, line.question(key))
        except RedisConnectionError:
            # The server has closed it while nobody used it; then the others will not do either.
            self.close()
            line = self._new_line()
            return self._ask(line, line.question(key))

    def ask_on_loop(self, key: str) -> Future[bytes | None] | None:
        """`get` as a future of the running loop; None while no line is at hand for it."""
        loop = get_running_loop()
        on_loop = self._on_loops.get(loop)
        if on_loop is None or not on_loop.is_open:
            on_loop = self._borrow(loop)
            if on_loop is None:
                return None
        line = on_loop.line
        # (a thread will find out what is to be asked now)
        return on_loop.ask(loop, line.question(key)) if line.epoch is epochs.current else None

    def _borrow(self, loop: AbstractEventLoop) -> LoopLine | None:
        try:
            line = self._at_hand.pop()
        except IndexError:
            return None
        if line.epoch is not epochs.current:
            self._give_back(line)
            return None
        if not isinstance(line, SocketLine):
            self._at_hand.append(line)
            return None
        self._sweep()
        try:
            on_loop = self._on_loops[loop] = LoopLine(loop, line, self._take_back)
        except NotImplementedError:  # a loop that watches no sockets (of Windows)
            self._at_hand.append(line)
            return None
        return on_loop

    def _sweep(self) -> None:
        """Take back what loops had that were closed in the middle of it."""
        for loop, on_loop in list(self._on_loops.items()):
            if loop.is_closed():
                del self._on_loops[loop]
                if on_loop.is_open:
                    self._give_back(on_loop.line)

    def _take_back(self, line: SocketLine, is_well: bool) -> None:
        if is_well:
            self._at_hand.append(line)
        else:
            # The server may have closed it while nobody used it, and then the others too.
            self._give_back(line)
            self.close()

    def close(self) -> None:
        """Give back the connections that are not in use, closed."""
        while self._at_hand:
            try:
                line = self._at_hand.pop()
            except IndexError:  # another thread had it
                return
            self._give_back(line)

    def _new_line(self) -> Line:
        return line_on(self._pool.get_connection(), self._start)

    def _ask(self, line: Line, question: bytes) -> bytes | None:
        try:
            reply: bytes | None = line.ask(question)
        except BaseException:
            # A reply that comes later must not be taken for that to another question.
            self._give_back(line)
            raise
        self._at_hand.append(line)
        return reply

    def _give_back(self, line: Line) -> None:
        line.connection.disconnect()
        self._pool.release(line.connection)
