"""The server's sockets: one thread for each connection, and one answer after the other on it."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast
from uuid import uuid4

from project.standin.protocols import Reply


@dataclass(frozen=True)
class Call:
    """One request that arrived: where, with which headers (lower-case names), asking what."""

    path: str
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any]


class Endpoint(Protocol):
    """Who answers what arrives here."""

    chunk_delay: float
    hang_up_after: int | None

    def note(self, call: Call) -> None: ...
    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> Reply: ...
    def stream_of(self, events: Iterator[str]) -> AbstractContextManager[Iterator[str]]: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 refuses connections as soon as a test opens fifty at once.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._open: set[socket.socket] = set()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for the host's full name here, which can take seconds
        # on a machine without a network, and nothing needs it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is everyday life, not worth a traceback."""

    def hang_up(self) -> None:
        # Kept-alive connections would outlive the server otherwise, each with its thread.
        for request in tuple(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: split, Nagle and delayed acknowledgement cost 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self._respond(self._body())

    def do_GET(self) -> None:
        self._respond(None)

    def _body(self) -> dict[str, Any] | None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _respond(self, body: dict[str, Any] | None) -> None:
        endpoint = cast(Server, self.server).endpoint
        path = self.path.partition("?")[0]
        if self.command == "POST":
            headers = {name.lower(): value for name, value in self.headers.items()}
            endpoint.note(Call(path, headers, body or {}))
        reply = endpoint.answer(self.command, path, body)
        if isinstance(reply.body, dict):
            self._send(reply.status, reply.body)
        else:
            with endpoint.stream_of(reply.body) as events:
                self._stream(reply.status, events)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        self._send_head(status, "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _stream(self, status: int, events: Iterator[str]) -> None:
        endpoint = cast(Server, self.server).endpoint
        self._send_head(status, "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            for number, event in enumerate(events):
                if number == endpoint.hang_up_after:
                    raise ConnectionAbortedError("told to hang up")
                if number and selector.select(endpoint.chunk_delay) and self._is_left():
                    raise ConnectionResetError("the client went away")
                self._write_chunk(event)
        # Some clients hang up as soon as they have read the last event.
        with suppress(ConnectionError):
            self._write_chunk("")

    def _send_head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        request_id = f"req_{uuid4().hex}"
        for name in ("x-request-id", "request-id"):  # OpenAI's, and Anthropic's
            self.send_header(name, request_id)

    def _is_left(self) -> bool:
        # Nobody sends a second request before the first is answered: what can be read is the end.
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _write_chunk(self, text: str) -> None:
        content = text.encode("utf-8", "replace")
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()

    def version_string(self) -> str:
        return "llmcache-stand-in"

    def log_message(self, *_: Any) -> None:
        """Quiet: the terminal belongs to the site's own log."""
