"""The vectors of a response, cut out and put together."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmcache.providers.dialects import cohere as of_cohere
from llmcache.providers.dialects import google, openai
from llmcache.providers.dialects import vectors as pieces
from tests.support import vectors

NAMES = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
)


@given(st.dictionaries(NAMES, JSON), st.lists(JSON), st.sampled_from([None, 1, "\t \r\n"]))
def test_pieces_are_found_where_json_has_them(members: Any, elements: Any, indent: Any) -> None:
    found = pieces.members(json.dumps(members, indent=indent))
    assert {name: json.loads(text) for name, text in found.items()} == members
    found_too = pieces.elements(json.dumps(elements, indent=indent))
    assert [json.loads(text) for text in found_too] == elements


WAYS: dict[str, Any] = {
    "openai": (openai.EMBEDDINGS, vectors.openai, {"model": "m"}),
    "openai, base64": (
        openai.EMBEDDINGS,
        vectors.openai,
        {"model": "m", "encoding_format": "base64"},
    ),
    "cohere": (of_cohere.EMBED, vectors.cohere, {"embedding_types": ["int8", "base64", "float"]}),
    "google": (google.EMBED_BATCH, vectors.gemini, {}),
}
TEXTS = st.lists(st.text(min_size=1), min_size=1, max_size=5)


@given(st.sampled_from(list(WAYS)), TEXTS, st.randoms(use_true_random=False))
def test_what_was_cut_is_joined_as_it_came(way: str, texts: list[str], random: Random) -> None:
    dialect, answered, body = WAYS[way]
    batch = dialect.batch
    assert batch is not None

    def said(texts: list[str]) -> Any:
        given = [{"content": {"parts": [{"text": each}]}} for each in texts]
        return answered(body | {batch.name: given if way == "google" else texts}, {}, cut=False)

    told = said(texts)
    pieces = batch.cut(told, json.dumps(told))
    chosen = [random.randrange(len(texts)) for _ in range(4)]
    joined = json.loads(batch.joined([pieces[number] for number in chosen]))
    assert joined == said([texts[number] for number in chosen])[batch.results]
