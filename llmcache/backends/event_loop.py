"""Questions to Redis on an event loop: asked and answered there, without another thread.

The connections are those that threads use too. A loop borrows one while anything is asked, and
sends the questions of all its coroutines on it, one after the other, without waiting for the
replies in between. So nothing is opened on a loop, and nothing is left behind by one that ends.

No turn of the loop belongs to the cache alone: of many replies that come at once, some are handed
out in each.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from redis import ConnectionError as RedisConnectionError
from redis import InvalidResponse, ResponseError
from redis import TimeoutError as RedisTimeoutError

from llmcache.backends.pool import Pool
from llmcache.backends.quick import BYTES_PER_SECOND, NOT_ALL

# Of the replies that are there, so many are handed out in one turn of the loop. Who gets one goes
# on in the next, and restores an answer: some tens of microseconds each.
REPLIES_PER_TURN: Final = 16
READ_BYTES: Final = 65_536
FULL_SECONDS: Final = 0.001

Loop = asyncio.AbstractEventLoop


class Loops:
    """What event loops have borrowed of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._borrowed: WeakKeyDictionary[Any, Borrowed] = WeakKeyDictionary()

    def ask(self, question: bytes) -> asyncio.Future[bytes | None] | None:
        """A future of the reply; None where no connection is at hand that can be used here."""
        loop = asyncio.get_running_loop()
        borrowed = self._borrowed.get(loop)
        if borrowed is None or not borrowed.is_open:
            borrowed = self._borrow(loop)
        elif not self._pool.approval.holds(borrowed.connection):
            return None  # (a thread will find out what is to be asked now)
        return None if borrowed is None else borrowed.ask(loop, question)

    def _borrow(self, loop: Loop) -> Borrowed | None:
        self._sweep()
        connection = self._pool.take_open()
        if connection is None:
            return None
        try:
            if connection.reader is not None:
                borrowed = self._borrowed[loop] = Borrowed(loop, connection, self._take_back)
                return borrowed
        except NotImplementedError:  # a loop that watches no sockets (of Windows)
            pass
        self._pool.put_back(connection)
        return None

    def _sweep(self) -> None:
        """Take back what loops had that were closed in the middle of it."""
        for reference in self._borrowed.keyrefs():  # (others borrow, and sweep, on their threads)
            loop = reference()
            if loop is None or not loop.is_closed():
                continue
            borrowed = self._borrowed.pop(loop, None)
            if borrowed is not None and borrowed.is_open:
                borrowed.connection.disconnect()
                self._pool.put_back(borrowed.connection)

    def _take_back(self, connection: Any, is_well: bool) -> None:
        if not is_well:
            # The server may have closed it while nobody used it, and then the others too.
            connection.disconnect()
            self._pool.disconnect()
        self._pool.put_back(connection)


class Borrowed:
    """A connection while a loop has it. `give_back` is told whether it is of use still."""

    def __init__(
        self, loop: Loop, connection: Any, give_back: Callable[[Any, bool], object]
    ) -> None:
        self.connection = connection
        self._give_back = give_back
        self._seconds = float(connection.socket_timeout)
        self._sock: socket.socket = connection._sock  # noqa: SLF001
        self._reader = connection.reader
        self._timeout = self._sock.gettimeout()
        # Those who wait, in the order of their questions, and since when.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._heard = 0.0
        self._unsent: list[bytes] = []
        self._replies: deque[Any] = deque()
        self._is_handing_out = False
        self._is_watched = False
        # (no reference to the loop is kept here, for one that is over and still has this)
        self._fd = self._sock.fileno()
        loop.add_reader(self._fd, self._read, loop)
        self._sock.setblocking(False)
        self.is_open = True

    def ask(self, loop: Loop, question: bytes) -> asyncio.Future[Any]:
        """A future of the reply."""
        future = loop.create_future()
        now = loop.time()
        self._waiting.append((future, now))
        if not self._is_watched:
            self._is_watched = True
            loop.call_at(now + self._seconds, self._watch, loop)
        if len(self._waiting) == 1:
            self._send(loop, question)
        else:
            # All that is asked in this turn goes at once.
            if not self._unsent:
                loop.call_soon(self._flush, loop)
            self._unsent.append(question)
        return future

    def _flush(self, loop: Loop) -> None:
        unsent, self._unsent = b"".join(self._unsent), []
        if unsent and self.is_open:
            self._send(loop, unsent)

    def _send(self, loop: Loop, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(loop, RedisConnectionError(f"Error while writing to socket: {error}"))
            return
        if sent < len(data):
            # More questions than the kernel takes: the rest in a moment.
            if not self._unsent:
                loop.call_later(FULL_SECONDS, self._flush, loop)
            self._unsent.insert(0, data[sent:])

    def _read(self, loop: Loop) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(loop, RedisConnectionError(f"Error while reading from socket: {error}"))
            return
        if not data:
            self._fail(loop, RedisConnectionError("Connection closed by server."))
            return
        # (how late a reply is, is counted from its beginning: see `BYTES_PER_SECOND`)
        is_rest = self._reader.has_data()
        self._heard = self._heard + len(data) / BYTES_PER_SECOND if is_rest else loop.time()
        try:
            complete = self._complete_with(data)
            self._replies.extend(complete)
        except Exception as error:  # noqa: BLE001 - whoever waits has it raised
            self._fail(loop, error)
            return
        if complete:
            self._heard = loop.time()
        if not self._is_handing_out:
            self._hand_out(loop)

    def _complete_with(self, data: bytes) -> list[Any]:
        """All replies that are complete by now; errors of the server are among them."""
        import hiredis

        found: list[Any] = []
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOT_ALL:
                is_error = isinstance(reply, Exception)
                found.append(ResponseError(str(reply)) if is_error else reply)
        except hiredis.ProtocolError as error:
            raise InvalidResponse(str(error)) from error
        return found

    def _hand_out(self, loop: Loop) -> None:
        self._is_handing_out = False
        for _ in range(min(REPLIES_PER_TURN, len(self._replies))):
            future, _since = self._waiting.popleft()
            reply = self._replies.popleft()
            if future.done():  # its coroutine was cancelled
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
        if self._replies:
            self._is_handing_out = True
            loop.call_soon(self._hand_out, loop)
        elif not self._waiting and self.is_open:
            self._leave(loop, is_well=True)

    def _watch(self, loop: Loop) -> None:
        """Whether nothing has come for too long, although somebody waits for it."""
        self._is_watched = False
        if not self.is_open or len(self._waiting) == len(self._replies):
            return
        _, since = self._waiting[len(self._replies)]
        until = max(since, self._heard) + self._seconds
        if loop.time() >= until:
            self._fail(loop, RedisTimeoutError("Timeout reading from socket"))
        else:
            self._is_watched = True
            loop.call_at(until, self._watch, loop)

    def _fail(self, loop: Loop, error: Exception) -> None:
        """Nobody who waits for a reply that is not there gets one any more."""
        self._leave(loop, is_well=False)
        there = len(self._replies)
        lost = [self._waiting.pop() for _ in range(len(self._waiting) - there)]
        for future, _ in reversed(lost):
            if not future.done():
                future.set_exception(error)

    def _leave(self, loop: Loop, *, is_well: bool) -> None:
        if self.is_open:
            self.is_open = False
            loop.remove_reader(self._fd)
            self._sock.settimeout(self._timeout)
            self._give_back(self.connection, is_well)
