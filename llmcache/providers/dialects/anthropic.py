"""Anthropic's messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import Dialect, Event, OutOfOrder
from llmcache.providers.dialects.shapes import ByType, Filled

# What a piece of a block adds to, by its type.
PIECES: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def assembled(events: list[Event]) -> dict[str, Any]:
    """A message, of the events from its start to its stop."""
    told = [event.data for event in events]
    if not all(isinstance(data, Mapping) for data in told):
        raise OutOfOrder("an event is no object")
    told = [data for data in told if data.get("type") != "ping"]
    if len(told) < 2 or told[0].get("type") != "message_start":
        raise OutOfOrder("the stream does not begin with a message")
    if told[-1].get("type") != "message_stop":
        raise OutOfOrder("the stream has no end")
    message = {**told[0]["message"], "content": []}
    open_at = -1
    for data in told[1:-1]:
        open_at = _read(message, data, open_at)
    if open_at >= 0:
        raise OutOfOrder("a block has no end")
    return message


def _read(message: dict[str, Any], data: Mapping[str, Any], open_at: int) -> int:
    """Put one event into the message. Returns the number of the block that is open; -1: none."""
    content, kind = message["content"], data.get("type")
    if kind == "content_block_start":
        if open_at >= 0 or message.get("stop_reason") or data.get("index") != len(content):
            raise OutOfOrder("a block begins before its turn")
        content.append(dict(data["content_block"]))
        return len(content) - 1
    if kind == "message_delta":
        if open_at >= 0 or message.get("stop_reason"):
            raise OutOfOrder("the message ends before its turn")
        message |= {name: value for name, value in data["delta"].items() if value is not None}
        message["usage"] = {**(message.get("usage") or {}), **(data.get("usage") or {})}
        return open_at
    if kind in {"content_block_delta", "content_block_stop"}:
        if open_at < 0 or data.get("index") != open_at:
            raise OutOfOrder("a piece is of a block that is not open")
        READERS[kind](content[open_at], data)
        return -1 if kind == "content_block_stop" else open_at
    raise OutOfOrder(f"there is an event of another kind: {str(kind)[:40]!r}")


def _add(block: dict[str, Any], data: Mapping[str, Any]) -> None:
    delta = data["delta"]
    if delta["type"] == "citations_delta":
        block.setdefault("citations", []).append(delta["citation"])
        return
    name = PIECES.get(delta["type"])
    if name is None:
        raise OutOfOrder(f"there is a piece of another kind: {str(delta['type'])[:40]!r}")
    block[name] = (block.get(name) or "") + delta[name]


def _close(block: dict[str, Any], data: Mapping[str, Any]) -> None:
    if "partial_json" in block:
        block["input"] = json.loads(block.pop("partial_json") or "{}")


READERS: Final[dict[str, Callable[[dict[str, Any], Mapping[str, Any]], None]]] = {
    "content_block_delta": _add,
    "content_block_stop": _close,
}

BLOCK: Final = ByType(
    text={"text": str},
    thinking={"thinking": str},
    tool_use={"id": str, "name": str, "input": dict},
)

# (OpenAI's threads have messages, too)
MESSAGES: Final = Dialect(
    "anthropic",
    re.compile(r"^(?!.*/threads/).*/messages$"),
    ("system", "messages"),
    schemas=frozenset({"tools", "output_config", "output_format"}),
    shape={"content": Filled([BLOCK])},
    assembled=assembled,
    last=b"message_stop",
)
DIALECTS: Final = (MESSAGES,)
