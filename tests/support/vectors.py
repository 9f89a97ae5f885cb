"""Vectors as providers send them: each text has one of its own, which tells it from all others.

Each text has as many tokens as letters, and is one of `DIMENSIONS` numbers, whose text no `float`
would be written with (``1.50E-3``): so it can be seen whether it is the same to the letter.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any, Final

Body = dict[str, Any]

DIMENSIONS: Final = 4


def numbers(text: Any) -> list[float]:
    """The vector of a text, or of a list of tokens."""
    digest = hashlib.sha256(json.dumps(text).encode()).digest()
    signed = struct.unpack_from(f"{DIMENSIONS}h", digest)
    # (as a float of 32 bits has them, which is how they come in base64)
    return list(struct.unpack(f"{DIMENSIONS}f", struct.pack(f"{DIMENSIONS}f", *_scaled(signed))))


def _scaled(signed: tuple[int, ...]) -> list[float]:
    return [number / 32768 for number in signed]


def in_base64(text: Any) -> str:
    return base64.b64encode(struct.pack(f"{DIMENSIONS}f", *numbers(text))).decode()


def tokens_of(texts: list[Any]) -> int:
    return sum(len(text) for text in texts)


def openai(body: Body, answer: Body, cut: bool) -> Body:
    given = body["input"]
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    vector = in_base64 if body.get("encoding_format") == "base64" else numbers
    data = [
        {"object": "embedding", "index": index, "embedding": vector(text)}
        for index, text in enumerate(texts)
    ]
    used = tokens_of(texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage, "id": "e1"}


def cohere(body: Body, answer: Body, cut: bool) -> Body:
    ways = {"float": numbers, "base64": in_base64, "int8": lambda text: list(text.encode())}
    kinds = body.get("embedding_types") or ["float"]
    found = {kind: [ways[kind](text) for text in body["texts"]] for kind in kinds}
    billed = {"billed_units": {"input_tokens": float(tokens_of(body["texts"]))}}
    said = {"id": "e1", "embeddings": found, "texts": body["texts"]}
    return said | {
        "response_type": "embeddings_by_type",
        "meta": {"api_version": {"version": "2"}} | billed,
    }


def gemini(body: Body, answer: Body, cut: bool) -> Body:
    texts = [_text(each) for each in body["requests"]]
    found = [{"values": numbers(text)} for text in texts]
    return {"embeddings": found, "usageMetadata": {"promptTokenCount": tokens_of(texts)}}


def gemini_alone(body: Body, answer: Body, cut: bool) -> Body:
    return {"embedding": {"values": numbers(_text(body))}}


def _text(request: Body) -> str:
    return "".join(part["text"] for part in request["content"]["parts"])


def ranking(body: Body, answer: Body, cut: bool) -> Body:
    order = sorted(range(len(body["documents"])), key=lambda at: numbers(body["documents"][at]))
    results = [{"index": at, "relevance_score": 1 / (1 + place)} for place, at in enumerate(order)]
    return {"id": "r1", "results": results, "meta": {"billed_units": {"search_units": 1.0}}}
