"""Whether what a provider sent is a whole answer, as its dialect tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from llmcache.flow.steps import NotStorable
from llmcache.providers.admission import has_ending, why_unfinished
from llmcache.providers.dialects import Dialect, Kind, events_in, fits
from llmcache.providers.streams import ReadChunks
from llmcache.reasons import ReasonCode

# Where the vectors of a batch are, and the ranking: by OpenAI and Mistral, Cohere, Gemini.
RESULTS: Final = {
    Kind.EMBEDDINGS: ("data", "embeddings", "embedding"),
    Kind.RANKING: ("results", "data"),
}


def judged(dialect: Dialect | None, body: Mapping[str, Any], content: bytes) -> Any:
    """The JSON of an answer. Raises `NotStorable` where it is not whole."""
    told = read_json(content)
    if dialect is None or not isinstance(told, dict):
        raise NotStorable(ReasonCode.NOT_WHOLE(why="it is no JSON object"))
    if dialect.kind is Kind.ANSWER:
        return _finished(dialect, told)
    results = [told[name] for name in RESULTS[dialect.kind] if told.get(name)]
    if told.get("error") or not results:
        raise NotStorable(ReasonCode.NOT_WHOLE(why="it has no results"))
    return told


def judged_stream(dialect: Dialect | None, content: bytes) -> dict[str, Any]:
    """The answer that the chunks make. Raises `NotStorable` where it is not whole."""
    if dialect is None or dialect.assembled is None:
        raise NotStorable(ReasonCode.NOT_WHOLE(why="its dialect has no streams"))
    try:
        told = dialect.assembled(events_in(content))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # (of a piece that is not of the shape that it has in this dialect)
        why = error if type(error).__name__ == "OutOfOrder" else type(error).__name__
        raise NotStorable(ReasonCode.NOT_WHOLE(why=why)) from None
    return _finished(dialect, told)


def usage_of(content: bytes) -> dict[str, Any]:
    """What a stream says of the tokens used, whole or not, as a response would."""
    chunks = ReadChunks()
    with suppress(ValueError, RecursionError):
        for event in events_in(content):
            chunks.read(event.data)
    return chunks.usage


def _finished(dialect: Dialect, told: dict[str, Any]) -> dict[str, Any]:
    if refusal := why_unfinished(told):
        raise NotStorable(refusal)
    if not has_ending(told):
        raise NotStorable(ReasonCode.UNSAID())
    if not fits(told, dialect.shape):
        raise NotStorable(ReasonCode.NOT_WHOLE(why="a part of it is missing, or of another kind"))
    return told


def read_json(content: bytes) -> Any:
    """What is written there; None for what is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
