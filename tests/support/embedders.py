"""The SDKs that ask for vectors, as their users call them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support import http
from tests.support.dialects import Model

Vectors = list[Any]
#: Posts texts, and what else is said of the body; `wishes` are what is asked of the cache.
Post = Callable[..., Any]


@dataclass(frozen=True)
class Embedder:
    """`ask` is given the client and texts, `vectors` what that gave; `tokens`: of that, too."""

    make: Callable[[str, bool], Any]
    ask: Callable[[Any, list[str]], Any]
    aask: Callable[[Any, list[str]], Any]
    vectors: Callable[[Any], Vectors]
    tokens: Callable[[Any], int | None]

    def embedded(
        self, client: Any, batches: list[list[str]], *, is_async: bool
    ) -> list[tuple[Vectors, int | None]]:
        """For each batch of texts the vectors, and how many tokens the response tells."""

        async def asked() -> list[Any]:
            return [await self.aask(client, texts) for texts in batches]

        came = asyncio.run(asked()) if is_async else [self.ask(client, texts) for texts in batches]
        return [(self.vectors(said), self.tokens(said)) for said in came]


def of_openai(client: Any, texts: Any) -> Any:
    return client.embeddings.create(model="m", input=texts)


def floats_of_openai(client: Any, texts: Any) -> Any:
    return client.embeddings.create(model="m", input=texts, encoding_format="float")


def of_cohere(client: Any, texts: list[str]) -> Any:
    kinds = ["float", "int8"]
    return client.embed(model="m", input_type="search_document", texts=texts, embedding_types=kinds)


def of_data(said: Any) -> Vectors:
    assert [each.index for each in said.data] == list(range(len(said.data)))
    return [each.embedding for each in said.data]


def of_usage(said: Any) -> int:
    assert said.usage.prompt_tokens == said.usage.total_tokens
    return int(said.usage.prompt_tokens)


EMBEDDERS = {
    "openai": Embedder(http.openai, of_openai, of_openai, of_data, of_usage),
    "openai, floats": Embedder(http.openai, floats_of_openai, floats_of_openai, of_data, of_usage),
    "azure": Embedder(http.azure, of_openai, of_openai, of_data, of_usage),
    "mistral": Embedder(
        http.mistral,
        lambda client, texts: client.embeddings.create(model="m", inputs=texts),
        lambda client, texts: client.embeddings.create_async(model="m", inputs=texts),
        of_data,
        of_usage,
    ),
    "cohere": Embedder(
        http.cohere,
        of_cohere,
        of_cohere,
        lambda said: list(zip(said.embeddings.float_, said.embeddings.int8, strict=True)),
        lambda said: int(said.meta.billed_units.input_tokens),
    ),
    "google": Embedder(
        http.google,
        lambda client, texts: client.models.embed_content(model="m", contents=texts),
        lambda client, texts: client.aio.models.embed_content(model="m", contents=texts),
        lambda said: [each.values for each in said.embeddings],
        lambda said: None,
    ),
}


def vectors_in(response: Any) -> list[Any]:
    data = response.json()["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    return [each["embedding"] for each in data]


def outcomes_of(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


def asked(model: Model) -> list[Any]:
    """The texts that the model was asked for each time."""
    names = ("input", "texts", "requests")
    return [next(body[name] for name in names if name in body) for body in model.bodies]
