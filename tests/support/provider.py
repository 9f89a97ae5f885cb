"""A provider in this process: what an HTTP client asks at last, without a network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.dialects import DIALECTS, _event

ADDRESS = "https://api.example.com/v1"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Which city?"}]}
ANSWER = {"name": "Rome", "hills": 7}


def whole(path: str = "/chat/completions", *, cut: bool = False, **body: Any) -> bytes:
    """What is answered at this path to a body."""
    make, _ = DIALECTS[path]
    return json.dumps(make({"model": "m", **body}, ANSWER, cut)).encode()


def streamed(path: str = "/chat/completions", *, cut: bool = False, **body: Any) -> list[bytes]:
    """The events of a stream, each by itself."""
    _, make = DIALECTS[path]
    return [_event(event) for event in make({"model": "m", **body}, ANSWER, cut)]


@dataclass
class Said:
    """A response; `body` as chunks is a stream. What `fails` is raised after the last chunk."""

    body: bytes | list[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fails: Exception | None = None


class Provider:
    """Says the same to each question, or what `said` makes of the request.

    `asked` are the requests. `told` notes in which order the chunks of streams are asked for, and
    that a stream was closed.
    """

    def __init__(self, said: Said | Exception | Callable[[Any], Said | Exception]) -> None:
        self.said = said
        self.asked: list[Any] = []
        self.told: list[str] = []

    def transport(self, library: Any = httpx2) -> Any:
        """For `httpx2.Client(transport=...)` and `AsyncClient`, or those of httpx."""
        return library.MockTransport(lambda request: self._answer(library, request))

    def _answer(self, library: Any, request: Any) -> Any:
        self.asked.append(request)
        said = self.said if isinstance(self.said, Said | Exception) else self.said(request)
        if isinstance(said, Exception):
            raise said
        if isinstance(said.body, bytes):
            kind = {"content-type": "application/json"}
            return library.Response(said.status, headers=kind | said.headers, content=said.body)
        kind = {"content-type": "text/event-stream"}
        stream = _stream_class(library)(self, said)
        return library.Response(said.status, headers=kind | said.headers, stream=stream)


def _stream_class(library: Any) -> Any:
    class Stream(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, provider: Provider, said: Said) -> None:
            self.provider, self.said = provider, said

        def __iter__(self) -> Iterator[bytes]:
            for number, chunk in enumerate(self.said.body):
                self.provider.told.append(f"chunk {number}")
                yield chunk  # type: ignore[misc]
            if self.said.fails:
                raise self.said.fails

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

        def close(self) -> None:
            self.provider.told.append("closed")

        async def aclose(self) -> None:
            self.close()

    return Stream
