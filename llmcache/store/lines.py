"""Open connections to Redis, each for one question at a time."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, Final

from redis import ConnectionError as RedisConnectionError
from redis import InvalidResponse, ResponseError
from redis import TimeoutError as RedisTimeoutError

try:
    import hiredis
except ImportError:  # redis-py does without
    HAS_HIREDIS = False
else:
    HAS_HIREDIS = True

READ_BYTES: Final = 16_384
NOT_ALL: Final = object()


class Line:
    """An open connection, for one question at a time."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def ask(self, question: bytes) -> Any:
        """The reply. Raises what redis-py raises; then the line is of no use any more."""
        self.connection.send_packed_command([question])
        return self.connection.read_response(disable_decoding=True)


class SocketLine(Line):
    """A line whose socket is used without the layers around it.

    The kernel keeps the time: a socket with a timeout of Python's asks it once more at each step.
    """

    def __init__(self, connection: Any, sock: socket.socket) -> None:
        super().__init__(connection)
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


def line_on(connection: Any) -> Line:
    """A line on a connection that is open."""
    sock: Any = getattr(connection, "_sock", None)
    return SocketLine(connection, sock) if _is_plain(connection, sock) else Line(connection)


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
