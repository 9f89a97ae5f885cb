"""What came back from a provider, live or from the store, and as it is stored.

An answer is stored as the bytes that came, once they are decoded; those of a stream with the length
of each chunk and the moment when it came. Beside it stands its head, as JSON:

    {"status": 200, "headers": [[name, value], ...], "chunks": [[bytes, milliseconds], ...]}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.exceptions import CorruptEntry
from llmcache.providers.headers import is_credential

Headers = list[tuple[str, str]]

# What is about the connection and the way of the bytes over it (RFC 9110, section 7.6.1), and what
# is for one client alone.
NOT_KEPT: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "content-encoding", "content-length", "set-cookie"),
    }
)
# The kind of what a stream is stored as.
CHUNKS: Final = "llmcache:chunks"
OK: Final = 200
# The moment of a chunk, in milliseconds after the head, before its bytes.
MOMENT: Final = struct.Struct("!I")
LAST_MOMENT: Final = 2**32 - 1


@dataclass(slots=True)
class Head:
    """The status of a response, and its headers. Of a stored stream: its `chunks`.

    `extensions` are those of a live response, for who asks it for its connection.
    """

    status: int
    headers: Headers
    chunks: list[tuple[int, int]] = field(default_factory=list)
    extensions: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        kept = [
            pair
            for pair in self.headers
            if pair[0].lower() not in NOT_KEPT and not is_credential(pair[0])
        ]
        told = {"status": self.status, "headers": kept, "chunks": self.chunks}
        return json.dumps(told).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Head:
        """What `to_json` gave. Raises `CorruptEntry` for anything else."""
        try:
            told = json.loads(data)
            headers = [(str(name), str(value)) for name, value in told["headers"]]
            chunks = [(int(length), int(at)) for length, at in told["chunks"]]
            return cls(int(told["status"]), headers, chunks)
        except (ValueError, TypeError, LookupError) as error:
            raise CorruptEntry("not the head of a response") from error


@dataclass(slots=True)
class Whole:
    """A response that is no stream: its `body` as it came over the network."""

    head: Head
    body: bytes

    def stored(self, content: bytes) -> StoredAnswer:
        """For the store; `content` is the body, decoded."""
        return StoredAnswer(content, fields_set=self.head.to_json())

    @classmethod
    def restored(cls, stored: StoredAnswer) -> Whole:
        head = Head.from_json(stored.fields_set)
        head.headers.append(("content-length", str(len(stored.answer))))
        return cls(head, stored.answer)


def item_of(chunk: bytes, moment: float) -> bytes:
    """A chunk of a stream, which came so many seconds after the head, as it is recorded."""
    return MOMENT.pack(min(round(moment * 1000), LAST_MOMENT)) + chunk


@dataclass(slots=True)
class Recorded:
    """What was recorded of a stream: its head, its whole body, and the length of each chunk."""

    head: Head
    body: bytes

    @classmethod
    def of(cls, items: list[bytes]) -> Recorded:
        """What the items are: the head as JSON, and chunks as `item_of` has them."""
        head, *chunks = items
        told = Head.from_json(head)
        told.chunks = [(len(each) - MOMENT.size, *MOMENT.unpack_from(each)) for each in chunks]
        return cls(told, b"".join(each[MOMENT.size :] for each in chunks))

    def stored(self, answer: bytes) -> StoredAnswer:
        """For the store; `answer` is what the chunks say, as JSON."""
        body = Dumped(CHUNKS, self.body)
        return StoredAnswer(answer, body, parsed=True, fields_set=self.head.to_json())


def restored_stream(stored: StoredAnswer) -> list[Any]:
    """The head, and the chunks. Raises `CorruptEntry`."""
    head = Head.from_json(stored.fields_set)
    body = stored.completion.data if stored.completion else b""
    if sum(length for length, _ in head.chunks) != len(body):
        raise CorruptEntry("not the chunks of a stream")
    return [head, *_cut(body, head.chunks)]


def _cut(body: bytes, chunks: list[tuple[int, int]]) -> Iterator[bytes]:
    start = 0
    for length, _ in chunks:
        yield body[start : start + length]
        start += length
