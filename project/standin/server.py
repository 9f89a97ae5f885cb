"""A real HTTP server for the stand-in, so that the SDKs' own network code is what runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from project.standin import protocols
from project.standin.answers import Behaviour
from project.standin.connections import Call, Server

__all__ = ["Call", "StandIn"]


class StandIn:
    """An endpoint for the OpenAI and Anthropic protocols, answering by rules instead of a model.

    Args:
        port: where to listen; 0 takes any free port.
        latency: seconds to wait before each answer.
        host: the interface to listen on.

    All of these may be changed while it runs:

    Attributes:
        behaviour: how to answer; see :class:`Behaviour`.
        latency: seconds before each answer, or before the first chunk of a stream.
        chunk_delay: seconds between two chunks of a stream.
        fail_with: the HTTP status that every request fails with; ``None``: none does.
        hang_up_after: how many chunks of a stream arrive before the connection breaks; ``None``:
            it does not.

    >>> with StandIn() as standin:
    ...     client = OpenAI(base_url=standin.url, api_key="any")
    """

    def __init__(self, port: int = 0, latency: float = 0.0, host: str = "127.0.0.1") -> None:
        self.latency = latency
        self.chunk_delay = 0.0
        self.fail_with: int | None = None
        self.hang_up_after: int | None = None
        self.behaviour = Behaviour()
        self._calls: list[Call] = []
        self._open_streams = 0
        self._abandoned_streams = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = Server((host, port), self)
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

    @property
    def open_streams(self) -> int:
        """How many streams are being sent just now."""
        return self._open_streams

    @property
    def abandoned_streams(self) -> int:
        """How many streams broke off since the start, whoever hung up."""
        return self._abandoned_streams

    def forget(self) -> None:
        """Start counting the calls and the abandoned streams anew."""
        with self._lock:
            self._calls.clear()
            self._abandoned_streams = 0

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

    @contextmanager
    def stream_of(self, events: Iterator[str]) -> Iterator[Iterator[str]]:
        """Count the stream as open, and as abandoned when it does not come to its end."""
        with self._lock:
            self._open_streams += 1
        abandoned = True
        try:
            yield events
            abandoned = False
        finally:
            with self._lock:
                self._open_streams -= 1
                self._abandoned_streams += abandoned
