"""Good answers of each dialect, broken in all ways: by the same number always in the same one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx2

from tests.support.dialects import Body, Events, _completion, _event, _usage_of_chat
from tests.support.http import SDKS, Sdk, openai
from tests.support.provider import ANSWER, Said, streamed, whole

# Of other types than what stands there, or too large.
VALUES: list[Any] = [None, 7, -1, "x", [], {}, [[]], [None], {"x": 1}, True, 0.5, 10**400]
WORDS: list[Any] = ["length", "max_tokens", "MAX_TOKENS", "content_filter", "SAFETY", "refusal"]
WORDS += ["incomplete", "in_progress", "failed", "pause_turn", "", "?", None, 7, [], {}]
ENDINGS = ("finish_reason", "stop_reason", "finishReason", "status")
BODIES = [b"", b"null", b"[]", b'"text"', b"7", b"<html>", b"\xff\xfe", b"{}", b"[" * 100_000]
ERRORS: list[Body] = [
    {"error": {"message": "overloaded", "type": "server_error", "code": 500}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}},
]
# What a tool is called with may look like anything.
FREE = ("args", "input")
# Events that have a piece of a text: one that is missing leaves no trace in most protocols.
PIECES = ("delta", "text", "content")


def _text_completion(body: Body, cut: bool = False) -> Body:
    choice = {"index": 0, "text": json.dumps(ANSWER), "finish_reason": "length" if cut else "stop"}
    return _completion("text_completion", body, choice) | {"usage": _usage_of_chat()}


def _text_completion_stream(body: Body) -> Events:
    for piece in ("{", '"name": ', '"Rome"}'):
        choice = {"index": 0, "text": piece}
        yield "", _completion("text_completion", body, choice)
    yield (
        "",
        _completion("text_completion", body, {"index": 0, "text": "", "finish_reason": "stop"}),
    )
    yield "", "[DONE]"


def _completions() -> Sdk:
    ask: Callable[..., Any] = lambda c, q, **more: c.completions.create(  # noqa: E731
        model="m", prompt=q, **more
    )
    return Sdk(openai, ask, lambda c, q: ask(c, q, stream=True))


@dataclass(frozen=True)
class Case:
    """A dialect: the SDK that asks, and what is answered, with and without tools.

    `is_numbered`: each event says which it is, so that a missing piece of a text can be told.
    `is_strict`: the SDK refuses a whole response for what is of no account to others.
    """

    sdk: Sdk
    path: str
    is_numbered: bool = False
    is_strict: bool = False
    tools: Any = None

    def good(self, is_stream: bool, has_tools: bool) -> Any:
        """What is answered as JSON, or the events of a stream."""
        if self.path == "/completions":
            body = {"model": "m"}
            if is_stream:
                return list(map(_event, _text_completion_stream(body)))
            return _text_completion(body)
        more = {"tools": self.tools} if has_tools and self.tools else {}
        return streamed(self.path, **more) if is_stream else json.loads(whole(self.path, **more))


CASES = {
    "openai chat": Case(
        SDKS["openai chat"], "/chat/completions", tools=[{"function": {"name": "city"}}]
    ),
    "openai completions": Case(_completions(), "/completions"),
    "openai responses": Case(SDKS["openai responses"], "/responses", is_numbered=True),
    "anthropic": Case(SDKS["anthropic"], "/messages", tools=[{"name": "city"}]),
    "google": Case(
        SDKS["google"], ":generateContent", tools=[{"functionDeclarations": [{"name": "city"}]}]
    ),
    "mistral": Case(SDKS["mistral"], "/chat/completions", is_strict=True),
    "cohere": Case(SDKS["cohere"], "/v2/chat"),
}


def broken(case: Case, number: int, is_stream: bool) -> Said:
    """The answer with this number."""
    random = Random(number)
    good = case.good(is_stream, has_tools=bool(number % 2))
    return _broken_stream(case, good, random) if is_stream else _broken_whole(good, random)


def _broken_whole(good: Body, random: Random) -> Said:
    match random.randrange(7):
        case 0:
            content = json.dumps(good).encode()
            return Said(content[: random.randrange(len(content))])
        case 1:  # (as of a body that is shorter than it was said to be)
            content = json.dumps(good).encode()
            fails = httpx2.RemoteProtocolError("too short")
            return Said([content[: random.randrange(len(content))]], fails=fails)
        case 2:
            return Said(random.choice(BODIES))
        case 3:
            error = random.choice(ERRORS)
            return Said(json.dumps(random.choice([error, good | error])).encode())
        case 4:
            return Said(json.dumps(_unfinished(good, random)).encode())
        case _:
            return Said(_off(good, random))


def _broken_stream(case: Case, events: list[bytes], random: Random) -> Said:
    content = b"".join(events)
    fixed = [at for at, event in enumerate(events) if case.is_numbered or not _is_piece(event)]
    at, other = random.choice(fixed), random.choice(fixed)
    match random.randrange(9):
        case 0:
            return Said([content[: random.randrange(len(content))]])
        case 1:
            return Said(events[: random.randrange(len(events))], fails=httpx2.ReadError("gone"))
        case 2:
            return Said([random.choice(BODIES)])
        case 3:
            del events[at]
        case 4:
            events.insert(at, events[at])
        case 5:
            events[at], events[other] = events[other], events[at]
        case 6:
            error = f"event: error\ndata: {json.dumps(random.choice(ERRORS))}\n\n".encode()
            events.insert(random.randrange(len(events)), error)
        case 7:
            events.append(random.choice(events))
        case _:
            events[at] = _off_event(events[at], random)
    return Said(events)


def _is_piece(event: bytes) -> bool:
    """Whether an event has a piece of a text, and nothing else that would be missed."""
    data = _data(event)
    if not isinstance(data, dict) or data.get("type", "") in ("message-end", "message_delta"):
        return False
    if "type" in data:
        return "delta" in str(data["type"]) and data["type"] != "message_delta"
    parts = [*data.get("choices", ()), *data.get("candidates", ())]
    return not any(part.get(name) for part in parts for name in ENDINGS)


def _data(event: bytes) -> Any:
    text = event.decode().rpartition("data: ")[2]
    return None if "[DONE]" in text else json.loads(text)


def _off_event(event: bytes, random: Random) -> bytes:
    data = _data(event)
    if data is None:
        return b"data: " + random.choice(BODIES) + b"\n\n"
    made = _unfinished(data, random) if random.random() < 0.5 else None
    new = _off(data, random) if made is None or made == data else json.dumps(made).encode()
    return event.partition(b"data: ")[0] + b"data: " + new + b"\n\n"


def _unfinished(good: Body, random: Random) -> Body:
    """With another word for how it has ended, where there is one."""
    made = copy.deepcopy(good)
    found = [(at, name) for at, name in _places(made) if name in ENDINGS and at[name]]
    if found:
        at, name = random.choice(found)
        at[name] = random.choice(WORDS)
    return made


def _off(good: Body, random: Random) -> bytes:
    """With something that is missing, of another type, or nested too deep."""
    made = copy.deepcopy(good)
    at, name = random.choice(list(_places(made)))
    match random.randrange(4):
        case 0:
            del at[name]
        case 1:
            at[name] = "DEEP"
        case _:
            at[name] = random.choice([v for v in VALUES if type(v) is not type(at[name])])
    return json.dumps(made).replace('"DEEP"', "[" * 100_000 + "]" * 100_000).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place inside, as what holds it and its name there."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in list(items):
        if name != "args":  # (which a function need not have)
            yield value, name
        if name not in FREE:
            yield from _places(inner)
