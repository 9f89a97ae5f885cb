"""Cohere's chat, embeddings and ranking, in the second version of its API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import Dialect, Event, Kind, OutOfOrder

# The lists of a message whose items come one after the other, by the event that begins one.
BEGIN: Final = {
    "content-start": "content",
    "tool-call-start": "tool_calls",
    "citation-start": "citations",
}


def assembled(events: list[Event]) -> dict[str, Any]:
    """A message, of the events from its start to its end."""
    told = [event.data for event in events if event.data != "[DONE]"]
    if not told or not all(isinstance(data, Mapping) for data in told):
        raise OutOfOrder("there are no events of a message")
    if told[0].get("type") != "message-start":
        raise OutOfOrder("the stream does not begin with a message")
    if told[-1].get("type") != "message-end":
        raise OutOfOrder("the stream has no end")
    message: dict[str, Any] = {"role": "assistant"}
    for data in told[1:-1]:
        _read(message, data)
    end = told[-1]["delta"]
    return {"id": told[0].get("id"), "message": message, **end}


def _read(message: dict[str, Any], data: Mapping[str, Any]) -> None:
    kind = data.get("type")
    said = (data.get("delta") or {}).get("message") or {}
    if kind in BEGIN:
        name = BEGIN[kind]
        items = message.setdefault(name, [])
        if data.get("index", 0) != len(items):
            raise OutOfOrder("an item begins before its turn")
        items.append(dict(said[name]))
    elif kind == "content-delta":
        _add(_item(message, "content", data), said["content"])
    elif kind == "tool-call-delta":
        call = _item(message, "tool_calls", data)
        _add(call.setdefault("function", {}), said["tool_calls"]["function"])
    elif kind == "tool-plan-delta":
        _add(message, said)
    elif kind not in {"content-end", "tool-call-end", "citation-end", "debug"}:
        raise OutOfOrder(f"there is an event of another kind: {str(kind)[:40]!r}")


def _item(message: dict[str, Any], name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    items, at = message.get(name, []), data.get("index", 0)
    if at != len(items) - 1:
        raise OutOfOrder("a piece is of an item that is not open")
    found: dict[str, Any] = items[at]
    return found


def _add(whole: dict[str, Any], pieces: Mapping[str, Any]) -> None:
    for name, piece in pieces.items():
        whole[name] = (whole.get(name) or "") + piece


CHAT: Final = Dialect(
    "cohere",
    re.compile(r"/v2/chat$"),
    ("messages", "documents"),
    assembled=assembled,
    last=b"message-end",
)
EMBED: Final = Dialect(
    "cohere", re.compile(r"/v[12]/embed$"), ("texts", "images", "inputs"), Kind.EMBEDDINGS
)
RERANK: Final = Dialect("cohere", re.compile(r"/rerank$"), ("query", "documents"), Kind.RANKING)
DIALECTS: Final = (CHAT, EMBED, RERANK)
