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
    parts = (whole.get("content") or {}).get("parts", [])
    whole |= candidate
    whole["content"] = {**content, "parts": [*parts, *(content.get("parts") or ())]}


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
