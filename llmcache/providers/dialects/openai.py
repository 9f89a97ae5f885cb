"""OpenAI's chat completions, completions, responses and embeddings; many others speak these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import DONE, Dialect, Event, Kind, OutOfOrder

# Texts that come in pieces.
TEXTS: Final = frozenset({"content", "refusal", "reasoning", "reasoning_content", "arguments"})
COMPLETED: Final = "response.completed"


def assembled_chat(events: list[Event]) -> dict[str, Any]:
    """A chat completion, or a completion, of its chunks."""
    if not events or events[-1].data != DONE:
        raise OutOfOrder("the stream has no end")
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        chunk = event.data
        if not isinstance(chunk, Mapping):
            raise OutOfOrder("a chunk is no object")
        whole |= {name: value for name, value in chunk.items() if value is not None}
        for choice in chunk.get("choices") or ():
            _add_choice(choices, choice)
    kind = str(whole.get("object", "")).removesuffix(".chunk")
    return {**whole, "object": kind, "choices": [choices[at] for at in sorted(choices)]}


def _add_choice(choices: dict[int, dict[str, Any]], choice: Mapping[str, Any]) -> None:
    whole = choices.setdefault(choice.get("index", 0), {"index": choice.get("index", 0)})
    delta = choice.get("delta") or {}
    said = choice.get("text") or any(value for name, value in delta.items() if name != "role")
    if whole.get("finish_reason") and said:
        raise OutOfOrder("a choice goes on after its end")
    if "text" in choice:
        whole["text"] = whole.get("text", "") + (choice["text"] or "")
    if "delta" in choice:
        _add(whole.setdefault("message", {}), delta)
    if choice.get("finish_reason"):
        whole["finish_reason"] = choice["finish_reason"]


def _add(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """The fields of a message, or of a tool's call, of which texts and lists come in pieces."""
    for name, value in delta.items():
        if isinstance(value, str) and name in TEXTS:
            whole[name] = (whole.get(name) or "") + value
        elif isinstance(value, Mapping):
            _add(whole.setdefault(name, {}), value)
        elif isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
            pieces = whole.setdefault(name, [])
            for piece in value:
                at = piece.get("index", 0)
                if at == len(pieces):
                    pieces.append({})
                elif not 0 <= at < len(pieces):
                    raise OutOfOrder(f"a piece of {name} is of none that has begun")
                _add(pieces[at], {key: each for key, each in piece.items() if key != "index"})
        elif value is not None:
            whole[name] = value


def assembled_response(events: list[Event]) -> dict[str, Any]:
    """The response that the last event has."""
    told = [event.data for event in events if event.data != DONE]
    if not told or not all(isinstance(data, Mapping) for data in told):
        raise OutOfOrder("there are no events of a response")
    numbers = [data["sequence_number"] for data in told if "sequence_number" in data]
    if numbers != sorted(numbers):
        raise OutOfOrder("the events are not in the order of their numbers")
    if told[-1].get("type") != COMPLETED or not isinstance(told[-1].get("response"), Mapping):
        raise OutOfOrder("the stream has no end")
    return dict(told[-1]["response"])


CHAT: Final = Dialect(
    "openai",
    re.compile(r"/chat/completions$"),
    ("messages",),
    schemas=frozenset({"tools", "functions", "response_format", "guided_json", "extra_body"}),
    assembled=assembled_chat,
    last=b"[DONE]",
)
COMPLETIONS: Final = Dialect(
    "openai",
    re.compile(r"(?<!/chat)/completions$"),
    ("prompt", "suffix"),
    assembled=assembled_chat,
    last=b"[DONE]",
)
RESPONSES: Final = Dialect(
    "openai",
    re.compile(r"/responses$"),
    ("instructions", "input"),
    schemas=frozenset({"tools", "text"}),
    assembled=assembled_response,
    last=COMPLETED.encode(),
)
EMBEDDINGS: Final = Dialect("openai", re.compile(r"/embeddings$"), ("input",), Kind.EMBEDDINGS)
DIALECTS: Final = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)
