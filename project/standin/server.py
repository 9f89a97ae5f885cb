"""A real HTTP server for the stand-in, so that the SDKs' own network code is what runs."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from uuid import uuid4

from project.standin import protocols
from project.standin.answers import Behaviour


@dataclass(frozen=True)
class Call:
    """One request that arrived: where, with which headers (lower-case names), asking what."""

    path: str
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any]


class StandIn:
    """An endpoint for the OpenAI and Anthropic protocols, without a model behind it.

    Args:
        port: where to listen; 0 takes any free port.
        latency: seconds to wait before each answer.

    All of these may be changed while it runs:

    Attributes:
        behaviour: how to answer; see :class:`Behaviour`.
        latency: seconds before each answer, or before the first chunk of a stream.
        chunk_delay: seconds between two chunks of a stream.
        fail_with: the HTTP status that every request fails with; ``None``: none does.
        hang_up_after: how many chunks of a stream arrive before the connection breaks; ``None``:
            it does not.

    And these say how it goes:

    Attributes:
        open_streams: how many streams are being sent just now.
        abandoned_streams: how many streams broke off since the start, whoever hung up.

    >>> with StandIn() as standin:
    ...     client = OpenAI(base_url=standin.url, api_key="any")
    """

    def __init__(self, port: int = 0, latency: float = 0.0) -> None:
        self.latency = latency
        self.chunk_delay = 0.0
        self.fail_with: int | None = None
        self.hang_up_after: int | None = None
        self.behaviour = Behaviour()
        self._calls: list[Call] = []
        self.open_streams = 0
        self.abandoned_streams = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = Server(("127.0.0.1", port), self)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        """The base URL for an OpenAI client."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """The base URL for an Anthropic client, which adds ``/v1`` itself."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Call]:
        """What was asked so far, in the order of arrival. A copy: safe to read at any time."""
        with self._lock:
            return list(self._calls)

    def forget(self) -> None:
        """Start counting the calls and the abandoned streams anew."""
        with self._lock:
            self._calls.clear()
            self.abandoned_streams = 0

    def start(self) -> Self:
        """Serve from a thread of its own."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="stand-in", daemon=True
        )
        self._thread.start()
        return self

    def wait(self) -> None:
        """Block until somebody calls :meth:`stop`, or interrupts."""
        self._closing.wait()

    def stop(self) -> None:
        """Stop listening and hang up on whoever is still connected."""
        self._closing.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def note(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> protocols.Reply:
        """Wait as long as a model would, then say what the protocol of ``path`` asks for."""
        self._closing.wait(self.latency)
        if self.fail_with is not None:
            return protocols.failure(path, self.fail_with, "The stand-in was told to fail.")
        return protocols.reply(method, path, body, self.behaviour)

    @contextmanager
    def stream_of(self, events: Iterator[str]) -> Iterator[Iterator[str]]:
        """Count the stream as open, and as abandoned when it does not come to its end."""
        with self._lock:
            self.open_streams += 1
        abandoned = True
        try:
            yield events
            abandoned = False
        finally:
            with self._lock:
                self.open_streams -= 1
                self.abandoned_streams += abandoned


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 refuses connections as soon as a test opens fifty at once.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], endpoint: StandIn) -> None:
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

    def log_message(self, *_: Any) -> None:
        """Quiet: the terminal belongs to the site's own log."""
