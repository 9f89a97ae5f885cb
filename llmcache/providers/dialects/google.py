"""Gemini's content and embeddings, of its own API and of Vertex AI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import Dialect, Event, Kind, OutOfOrder

SCHEMAS: Final = frozenset({"tools", "generationConfig", "generation_config"})
CONVERSATION: Final = ("systemInstruction", "system_instruction", "contents")


def assembled(events: list[Event]) -> dict[str, Any]:
    """A response of its chunks: each has some of the parts of each candidate."""
    whole: dict[str, Any] = {}
    candidates: dict[int, dict[str, Any]] = {}
    for event in events:
        if not isinstance(event.data, Mapping):
            raise OutOfOrder("a chunk is no object")
        whole |= event.data
        for candidate in event.data.get("candidates") or ():
            _add(candidates.setdefault(candidate.get("index", 0), {}), candidate)
    return {**whole, "candidates": [candidates[at] for at in sorted(candidates)]}


def _add(whole: dict[str, Any], candidate: Mapping[str, Any]) -> None:
    content = candidate.get("content") or {}
    if whole.get("finishReason") and content.get("parts"):
        raise OutOfOrder("a candidate goes on after its end")
    parts = list((whole.get("content") or {}).get("parts", []))
    for part in content.get("parts") or ():
        _add_part(parts, part)
    whole |= candidate
    whole["content"] = {**content, "parts": parts}


def _add_part(parts: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    """A text goes on with the one before it, where all else in them is the same."""
    last = parts[-1] if parts else {}
    if "text" in part and {**last, "text": ""} == {**part, "text": ""} and "text" in last:
        parts[-1] = {**last, "text": last["text"] + part["text"]}
    else:
        parts.append(dict(part))


GENERATE: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):generateContent$"),
    CONVERSATION,
    schemas=SCHEMAS,
)
STREAM: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):streamGenerateContent$"),
    CONVERSATION,
    schemas=SCHEMAS,
    assembled=assembled,
    streams=True,
)
EMBED: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):(embedContent|batchEmbedContents)$"),
    ("content", "requests"),
    Kind.EMBEDDINGS,
)
DIALECTS: Final = (GENERATE, STREAM, EMBED)
