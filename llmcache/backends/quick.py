"""A question on the socket of a connection itself: a tenth of a hit goes past redis-py with it.

The kernel keeps the time: a socket with a timeout of Python's asks it once more at each step.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
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
# Once a reply has begun, no less of it comes in a second: who gets it byte by byte would wait for
# as long as the server likes.
BYTES_PER_SECOND: Final = 1_000_000
NOT_ALL: Final = object()


def prepare(connection: Any) -> None:
    """Note on a connection that was opened whether its socket is all that is needed."""
    sock, seconds = connection._sock, connection.socket_timeout  # noqa: SLF001
    connection.reader = None
    # (TLS, greenlets and checks of health are left to redis-py)
    if (
        HAS_HIREDIS
        and sys.platform == "linux"
        and type(sock) is socket.socket
        and socket.socket.__module__ == "socket"
        and not connection.health_check_interval
    ):
        bound = struct.pack("ll", *divmod(int(seconds * 1_000_000), 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        sock.settimeout(None)
        # (last: who is interrupted before leaves it to redis-py)
        connection.reader = hiredis.Reader(notEnoughData=NOT_ALL)


def ask(connection: Any, question: bytes) -> Any:
    """The reply. Where there is none, the connection is closed: it may come later."""
    try:
        reader = connection.reader
        if reader is None:
            connection.send_packed_command((question,))
            return connection.read_response(disable_decoding=True)
        sock = connection._sock  # noqa: SLF001
        sock.sendall(question)
        data, ends = sock.recv(READ_BYTES), 0.0
        while True:
            if not data:
                raise RedisConnectionError("Connection closed by server.")
            reader.feed(data)
            reply = reader.gets()
            if type(reply) is bytes or reply is None:
                return reply
            if isinstance(reply, Exception):
                raise ResponseError(str(reply))
            now = time.monotonic()
            ends = (ends or now + connection.socket_timeout) + len(data) / BYTES_PER_SECOND
            if now > ends:
                raise BlockingIOError("it comes too slowly")
            data = sock.recv(READ_BYTES)
    except BaseException as error:
        connection.disconnect()
        if isinstance(error, BlockingIOError):
            raise RedisTimeoutError("Timeout reading from socket") from error
        if isinstance(error, OSError):
            raise RedisConnectionError(f"Error while reading from socket: {error}") from error
        if HAS_HIREDIS and isinstance(error, hiredis.ProtocolError):
            raise InvalidResponse(str(error)) from error
        raise
