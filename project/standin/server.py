"""A real HTTP server for the stand-in, so that the SDKs' own network code is what runs."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

from project.standin import protocols
from project.standin.answers import Behaviour


@dataclass(frozen=True)
class Call:
    """One request that arrived: where, with which headers (lower-case names), asking what."""

    path: str
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any]


class StandIn:
    """An endpoint for the OpenAI and Anthropic protocols, answering by rules instead of a model.

    Args:
        port: where to listen; 0 takes any free port.
        latency: seconds to wait before each answer. May be changed while running.
        host: the interface to listen on.

    ``fail_with`` makes every request fail with that HTTP status until it is ``None`` again.
    ``behaviour`` says how to answer; see :class:`Behaviour`.

    >>> with StandIn() as standin:
    ...     client = OpenAI(base_url=standin.url, api_key="any")
    """

    def __init__(self, port: int = 0, latency: float = 0.0, host: str = "127.0.0.1") -> None:
        self.latency = latency
        self.fail_with: int | None = None
        self.behaviour = Behaviour()
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server((host, port), self)
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
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    @property
    def calls(self) -> list[Call]:
        """What was asked so far, in the order of arrival. A copy: safe to read at any time."""
        with self._lock:
            return list(self._calls)

    def forget(self) -> None:
        """Start counting the calls anew."""
        with self._lock:
            self._calls.clear()

    def start(self) -> Self:
        """Serve from a thread of its own."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="stand-in", daemon=True
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 refuses connections as soon as a test opens fifty at once.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], standin: StandIn) -> None:
        self.standin = standin
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

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


class _Handler(BaseHTTPRequestHandler):
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
        standin = cast(_Server, self.server).standin
        path = self.path.partition("?")[0]
        if self.command == "POST":
            headers = {name.lower(): value for name, value in self.headers.items()}
            standin.note(Call(path, headers, body or {}))
        self._send(standin.answer(self.command, path, body))

    def _send(self, reply: protocols.Reply) -> None:
        content = json.dumps(reply.body, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def version_string(self) -> str:
        return "llmcache-stand-in"

    def log_message(self, *_: Any) -> None:
        """Quiet: the terminal belongs to the site's own log."""
