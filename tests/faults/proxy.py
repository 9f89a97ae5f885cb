"""A TCP proxy on loopback that makes the server behind it slow, rude, or absent."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

from tests.support.servers import free_port

# Of a reply, so many bytes come through before the connection breaks.
BYTES_BEFORE_THE_CUT = 3


class Proxy:
    """Passes bytes on to a port; all of its attributes may be changed while it runs.

    Attributes:
        delay: seconds that each reply is held back.
        cutting: whether connections break in the middle of a reply.
        refusing: whether connections are hung up on as soon as they are made.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.cutting = False
        self.refusing = False
        self.port = free_port()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """For a client of Redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    def hang_up(self) -> None:
        """Break all connections that there are."""
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        _in_background(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                _in_background(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.refusing:
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                _in_background(self._pass_on, client, server)
                self._pass_back(server, client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _end(server)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                time.sleep(self.delay)
                if self.cutting:
                    client.sendall(data[:BYTES_BEFORE_THE_CUT])
                    return
                client.sendall(data)
        finally:
            self._open -= {client, server}
            _end(client)
            _end(server)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _in_background(work: object, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()  # type: ignore[arg-type]
