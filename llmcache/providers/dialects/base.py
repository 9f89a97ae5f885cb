"""What a dialect says of a request that is posted, and of the stream that comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

Body = Mapping[str, Any]


class Event(NamedTuple):
    """One event of a stream: its name, where it has one, and its data as JSON."""

    name: str
    data: Any


class OutOfOrder(ValueError):
    """The events of a stream are none of a whole answer; the message says which."""


class Kind(Enum):
    """What is asked for."""

    ANSWER = "answer"
    EMBEDDINGS = "embeddings"
    RANKING = "ranking"


@dataclass(frozen=True, slots=True)
class Batch:
    """How many texts are asked for at once, and how their vectors come back.

    `name` is the field of the body that has the texts (or lists of tokens, or objects), `results`
    that of the response. `split` gives the texts one by one, None where that cannot be; where it
    `stands_alone`, a single one has no list around it. `cut` is given a response and its text, and
    has the JSON of what came for each text, in their order; it raises what it may where that is not
    to be told. `joined` makes the `results` of such pieces.
    """

    name: str
    results: str
    split: Callable[[Body], list[Any] | None]
    cut: Callable[[Mapping[str, Any], str], list[str]]
    joined: Callable[[list[str]], str]
    stands_alone: bool = False

    def body_of_one(self, body: Body, text: Any) -> dict[str, Any]:
        """The body that asks for one of the texts of `body`."""
        return {**body, self.name: text if self.stands_alone else [text]}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of request is written, and how it is answered.

    `provider` is whose words these are, and `path` what the path of the address ends with, the
    model in it where it stands there. `conversation` names the fields that people read, `schemas`
    those in which the order of fields counts, since a model fills them in in that order.
    `shape` is what an answer looks like (see `shapes`). `assembled` makes of the events of a stream
    the answer that would have come without one, and raises `OutOfOrder`; `last` is what the last
    event of a stream that is whole has in it (none: nothing tells it from the others). `batch`: of
    embeddings, where they come one by one.
    """

    provider: str
    path: re.Pattern[str]
    conversation: tuple[str, ...]
    kind: Kind = Kind.ANSWER
    schemas: frozenset[str] = frozenset({"tools", "response_format"})
    shape: Any = field(default_factory=dict, compare=False)
    assembled: Callable[[list[Event]], dict[str, Any]] | None = None
    last: bytes = b""
    #: Whether the address alone says that a stream is to come.
    streams: bool = False
    batch: Batch | None = None

    def model_of(self, path: str, body: Body) -> str:
        """The model that is asked; empty where nothing names one."""
        named = self._model_in(path) or body.get("model")
        return named if isinstance(named, str) else ""

    def names_model_in(self, path: str) -> bool:
        """Whether the model is named by the address, and not in the body."""
        return self._model_in(path) is not None

    def _model_in(self, path: str) -> str | None:
        match = self.path.search(path)
        return match.groupdict().get("model") if match else None

    def is_stream(self, body: Body) -> bool:
        return self.streams or body.get("stream") is True


# The lines of an event stream end in any of these
# (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
LINE_END: Final = re.compile(r"\r\n|\n|\r")
# What OpenAI, and who speaks like it, say at the end.
DONE: Final = "[DONE]"


def events_in(stream: bytes) -> list[Event]:
    """The events of a stream of server-sent events, or of a list in JSON (as Gemini sends one).

    Raises `ValueError` for data that is no JSON.
    """
    text = stream.decode()
    if text.lstrip().startswith("["):
        return [Event("", data) for data in json.loads(text)]
    return [
        Event(name, DONE if data.strip() == DONE else json.loads(data))
        for name, data in _dispatched(text)
    ]


def _dispatched(text: str) -> Iterator[tuple[str, str]]:
    name, data = "", list[str]()
    # (an event that no empty line ends is none)
    for line in LINE_END.split(text.removeprefix("\ufeff"))[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "", []
        elif field == "data":
            data.append(value)
        elif field == "event":
            name = value
