"""Gemini's content and embeddings, of its own API and of Vertex AI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import Batch, Body, Dialect, Event, Kind, OutOfOrder
from llmcache.providers.dialects.shapes import AnyOf, Filled
from llmcache.providers.dialects.vectors import check_vector, elements, listed, members

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


def texts_in(body: Body) -> list[Any] | None:
    """The requests of a batch, each of one text, with what else is asked of it."""
    requests = body.get("requests")
    is_batch = isinstance(requests, list) and all(isinstance(each, dict) for each in requests)
    return requests or None if is_batch else None


def vectors_in(told: Mapping[str, Any], text: str) -> list[str]:
    """What came for each text: the object of its vector."""
    for embedding in told["embeddings"]:
        check_vector(embedding["values"])
    return elements(members(text)["embeddings"])


CALL: Final = {"name": str, "args?": dict}
PART: Final = AnyOf(
    text=str,
    functionCall=CALL,
    inlineData=dict,
    fileData=dict,
    executableCode=dict,
    codeExecutionResult=dict,
    thoughtSignature=str,
)
COUNTS: Final = {
    "promptTokenCount?": int,
    "candidatesTokenCount?": int,
    "totalTokenCount?": int,
    "thoughtsTokenCount?": int,
    "cachedContentTokenCount?": int,
}
CONTENT: Final = {"parts": Filled([PART]), "role?": str}
# (its SDK refuses the whole response for any of these that is of another type)
ANSWER: Final = {
    "candidates": Filled([{"content": CONTENT, "index?": int}]),
    "usageMetadata?": COUNTS,
    "modelVersion?": str,
    "responseId?": str,
}

GENERATE: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):generateContent$"),
    CONVERSATION,
    schemas=SCHEMAS,
    shape=ANSWER,
)
STREAM: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):streamGenerateContent$"),
    CONVERSATION,
    schemas=SCHEMAS,
    shape=ANSWER,
    assembled=assembled,
    streams=True,
)
EMBED: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):embedContent$"),
    ("content",),
    Kind.EMBEDDINGS,
)
EMBED_BATCH: Final = Dialect(
    "google",
    re.compile(r"/models/(?P<model>[^/:]+):batchEmbedContents$"),
    ("requests",),
    Kind.EMBEDDINGS,
    batch=Batch("requests", "embeddings", texts_in, vectors_in, listed),
)
DIALECTS: Final = (GENERATE, STREAM, EMBED, EMBED_BATCH)
