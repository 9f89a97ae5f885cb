"""Open connections to Redis, each for one question at a time."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from redis import ConnectionError as RedisConnectionError
from redis import InvalidResponse, ResponseError
from redis import TimeoutError as RedisTimeoutError

try:
    import hiredis
except ImportError:  # redis-py does without
    HAS_HIREDIS = False
else:
    HAS_HIREDIS = True

if TYPE_CHECKING:
    from llmcache.store.hot.epochs import Epoch

READ_BYTES: Final = 16_384
NOT_ALL: Final = object()


class Line:
    """An open connection, for one question at a time; `epoch` is the one that it was checked in."""

    def __init__(self, connection: Any, start: bytes) -> None:
        """`start`: what the server puts before a key of the backend."""
        self.connection = connection
        self.epoch: Epoch = connection.llmcache_epoch
        self._start = start + self.epoch.name_of("").encode()

    def question(self, key: str) -> bytes:
        """A ``GET`` for the copy of an entry."""
        name = self._start + key.encode()
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)

    def ask(self, question: bytes) -> Any:
        """The reply. Raises what redis-py raises; then the line is of no use any more."""
        self.connection.send_packed_command([question])
        return self.connection.read_response(disable_decoding=True)


class SocketLine(Line):
    """A line whose socket is used without the layers around it.

    The kernel keeps the time: a socket with a timeout of Python's asks it once more at each step.
    """

    def __init__(self, connection: Any, start: bytes, sock: socket.socket) -> None:
        super().__init__(connection, start)
        sock.settimeout(None)
        bound = struct.pack("ll", *divmod(int(connection.socket_timeout * 1_000_000), 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        reader = hiredis.Reader(notEnoughData=NOT_ALL)
        self.sock = sock
        self._send, self._receive = sock.sendall, sock.recv
        self._feed, self._gets = reader.feed, reader.gets

    def ask(self, question: bytes) -> Any:
        try:
            self._send(question)
            while True:
                data = self._receive(READ_BYTES)
                if not data:
                    raise RedisConnectionError("Connection closed by server.")
                self._feed(data)
                reply = self._gets()
                if type(reply) is bytes or reply is None:
                    return reply
                if isinstance(reply, Exception):
                    raise ResponseError(str(reply))
        except BlockingIOError as error:
            raise RedisTimeoutError("Timeout reading from socket") from error
        except OSError as error:
            raise RedisConnectionError(f"Error while reading from socket: {error}") from error
        except hiredis.ProtocolError as error:
            raise InvalidResponse(str(error)) from error

    def replies(self, data: bytes) -> list[Any]:
        """All replies that are complete with `data`; errors of the server are among them."""
        try:
            self._feed(data)
            found: list[Any] = []
            while (reply := self._gets()) is not NOT_ALL:
                if isinstance(reply, Exception):
                    found.append(ResponseError(str(reply)))
                elif type(reply) is bytes or reply is None:
                    found.append(reply)
        except hiredis.ProtocolError as error:
            raise InvalidResponse(str(error)) from error
        return found


def line_on(connection: Any, start: bytes) -> Line:
    """A line on a connection that is open and checked."""
    sock: Any = getattr(connection, "_sock", None)
    is_plain = _is_plain(connection, sock)
    return SocketLine(connection, start, sock) if is_plain else Line(connection, start)


def _is_plain(connection: Any, sock: Any) -> bool:
    """Whether the socket is all that is needed: no TLS, no greenlets, no checks of health."""
    return (
        HAS_HIREDIS
        and sys.platform == "linux"
        and type(sock) is socket.socket
        and socket.socket.__module__ == "socket"  # (where gevent has not put its own)
        and bool(connection.socket_timeout)
        and not connection.health_check_interval
    )
