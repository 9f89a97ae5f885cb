"""Cohere's chat, embeddings and ranking, in the second version of its API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import Batch, Body, Dialect, Event, Kind, OutOfOrder
from llmcache.providers.dialects.shapes import AnyOf, ByType, Filled
from llmcache.providers.dialects.vectors import (
    check_vector,
    elements,
    listed,
    members,
    with_members,
)

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


def texts_in(body: Body) -> list[Any] | None:
    """The texts of a request for embeddings, where it is of nothing else."""
    texts = body.get("texts")
    if body.get("images") or body.get("inputs") or not isinstance(texts, list):
        return None
    return texts if texts and all(isinstance(each, str) for each in texts) else None


def vectors_in(told: Mapping[str, Any], text: str) -> list[str]:
    """What came for each text: an object with its vector of each type that was asked for."""
    for vectors in told["embeddings"].values():
        for vector in vectors:
            check_vector(vector)
    written = members(members(text)["embeddings"])
    by_type = [elements(vectors) for vectors in written.values()]
    return [
        with_members(dict(zip(written, vectors, strict=True)))
        for vectors in zip(*by_type, strict=True)
    ]


def by_type(pieces: list[str]) -> str:
    vectors = [members(piece) for piece in pieces]
    if any(each.keys() != vectors[0].keys() for each in vectors):
        raise OutOfOrder("the vectors are of different types")
    return with_members({kind: listed([each[kind] for each in vectors]) for kind in vectors[0]})


CALL: Final = {"function": {"name": str, "arguments": str}}
CONTENT: Final = ByType(text={"text": str}, thinking={"thinking": str})
MESSAGE: Final = AnyOf(content=Filled([CONTENT]), tool_calls=Filled([CALL]))
CHAT: Final = Dialect(
    "cohere",
    re.compile(r"/v2/chat$"),
    ("messages", "documents"),
    shape={"message": MESSAGE},
    assembled=assembled,
    last=b"message-end",
)
EMBEDDED: Final = ("texts", "images", "inputs")
EMBED_V1: Final = Dialect("cohere", re.compile(r"/v1/embed$"), EMBEDDED, Kind.EMBEDDINGS)
EMBED: Final = Dialect(
    "cohere",
    re.compile(r"/v2/embed$"),
    EMBEDDED,
    Kind.EMBEDDINGS,
    batch=Batch("texts", "embeddings", texts_in, vectors_in, by_type),
)
RERANK: Final = Dialect("cohere", re.compile(r"/rerank$"), ("query", "documents"), Kind.RANKING)
DIALECTS: Final = (CHAT, EMBED, EMBED_V1, RERANK)
