"""What the tests of the HTTP door share: a stand-in for all providers, and ways to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from tests.support.dialects import Model
from tests.support.embedders import Post


@pytest.fixture
def dialects() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture
def post(dialects: Model, is_async: bool) -> Iterator[Post]:
    """Posts texts to the address of OpenAI's embeddings; what else is said is of the body."""
    url = f"{dialects.root}/v1/embeddings"

    def sent(texts: Any, wishes: Any, body: Any) -> dict[str, Any]:
        headers = {} if wishes is None else llmcache.headers(**wishes)
        return {"json": {"model": "m", "input": texts} | body, "headers": headers}

    async def asked(request: Any) -> Any:
        async with llmcache.async_http_client() as client:
            said = await client.post(url, **request)
            # (what is refreshed behind the caller)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            return said

    with llmcache.http_client() as client:

        def post(texts: Any, *, wishes: Any = None, **body: Any) -> Any:
            request = sent(texts, wishes, body)
            return asyncio.run(asked(request)) if is_async else client.post(url, **request)

        yield post
