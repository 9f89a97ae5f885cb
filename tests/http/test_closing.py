"""A wrapped client shares the connections of the given one: whoever is closed closes them."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import httpx
import httpx2
import psutil
import pytest

import llmcache
from tests.support.dialects import Model
from tests.support.http import ASYNC_SDKS, SDKS, Sdk, openai

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest, is_async: bool) -> Sdk:
    return (ASYNC_SDKS if is_async else SDKS)[request.param]


def connected(model: Model) -> int:
    """How many connections this process has to the provider."""
    port = int(model.root.rpartition(":")[2])
    found = psutil.Process().net_connections(kind="tcp")
    return sum(bool(each.raddr) and each.raddr.port == port for each in found)


def test_closing_it_gives_the_connections_back(dialects: Model, sdk: Sdk, is_async: bool) -> None:
    client = llmcache.wrap(sdk.make(dialects.root, is_async))
    if is_async:
        asyncio.run(_ask_and_close(dialects, sdk, client))
        return
    with client:
        sdk.ask(client, "Which city?")
        assert connected(dialects)
    assert not connected(dialects)


async def _ask_and_close(model: Model, sdk: Sdk, client: Any) -> None:
    async with getattr(client, "aio", client):
        await sdk.ask(client, "Which city?")
        assert connected(model)
    assert not connected(model)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_closing_a_wrapped_http_client_closes_the_given_one(dialects: Model, library: Any) -> None:
    with llmcache.wrap(library.Client()) as http:
        http.post(f"{dialects.root}/v1/embeddings", json={"model": "m", "input": "a"})
        assert connected(dialects)
    assert not connected(dialects)


def test_dropping_it_leaves_the_connections_to_the_given_one(
    dialects: Model, sdk: Sdk, is_async: bool
) -> None:
    client = sdk.make(dialects.root, is_async)
    if is_async:
        asyncio.run(_adrop(dialects, sdk, client))
        return
    sdk.ask(llmcache.wrap(client), "Which city?")
    gc.collect()
    assert connected(dialects)
    sdk.ask(client, "Which city?")


async def _adrop(model: Model, sdk: Sdk, client: Any) -> None:
    await sdk.ask(client, "Which city?")  # (google's has connections of its own for each copy)
    await sdk.ask(llmcache.wrap(client), "Which other city?")
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connected(model)
    await sdk.ask(client, "Which city?")


def test_the_given_one_may_be_dropped(dialects: Model, sdk: Sdk, is_async: bool) -> None:
    client = llmcache.wrap(sdk.make(dialects.root, is_async))
    gc.collect()
    sdk.answers(client, ["Which city?"], is_async=is_async)
    assert dialects.asked == 1


def test_with_both_dropped_the_connections_are_closed(dialects: Model) -> None:
    client = llmcache.wrap(openai(dialects.root, False))
    client.embeddings.create(model="m", input="a")
    assert connected(dialects)
    del client
    gc.collect()
    assert not connected(dialects)
