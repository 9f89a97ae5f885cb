"""Questions to Redis on an event loop: asked and answered there, without another thread.

The connections are those that threads use too (see `sockets`). A loop borrows one while anything is
asked, and sends the questions of all its coroutines on it, one after the other, without waiting for
the replies in between. So nothing is opened on a loop, and nothing is left behind by one that ends.

No turn of the loop belongs to the cache alone: of many replies that come at once, some are handed
out in each.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from redis import ConnectionError as RedisConnectionError
from redis import TimeoutError as RedisTimeoutError

from llmcache.store.hot.sockets import SocketLine

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the replies that are there, so many are handed out in one turn of the loop. Who gets one goes
# on in the next, and restores an answer: some tens of microseconds each.
REPLIES_PER_TURN: Final = 16
READ_BYTES: Final = 65_536
FULL_SECONDS: Final = 0.001

Loop = asyncio.AbstractEventLoop


class LoopLine:
    """A line while a loop has it. `give_back` is told the line, and whether it is of use still."""

    def __init__(
        self, loop: Loop, line: SocketLine, give_back: Callable[[SocketLine, bool], object]
    ) -> None:
        self.line = line
        self._give_back = give_back
        self._seconds = float(line.connection.socket_timeout)
        self._fd = line.sock.fileno()
        # Those who wait, in the order of their questions, and since when.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._heard = 0.0
        self._unsent: list[bytes] = []
        self._replies: deque[Any] = deque()
        self._is_handing_out = False
        self._is_watched = False
        self.is_open = True
        # (no reference to the loop is kept here, for one that is over and still has a line)
        loop.add_reader(self._fd, self._read, loop)

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
            sent = self.line.sock.send(data, socket.MSG_DONTWAIT)
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
            data = self.line.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(loop, RedisConnectionError(f"Error while reading from socket: {error}"))
            return
        if not data:
            self._fail(loop, RedisConnectionError("Connection closed by server."))
            return
        self._heard = loop.time()
        try:
            self._replies.extend(self.line.replies(data))
        except Exception as error:  # noqa: BLE001 - whoever waits has it raised
            self._fail(loop, error)
            return
        if not self._is_handing_out:
            self._hand_out(loop)

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
            self._give_back(self.line, is_well)
