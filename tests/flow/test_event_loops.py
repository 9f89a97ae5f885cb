"""Coroutines of llmcache run on asyncio; on trio, each says so before anybody is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

import llmcache
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client
from tests.support.ticket import Ticket

asked: list[str] = []


@llmcache.cached
async def decorated() -> int:
    asked.append("a coroutine function")
    return 1


@llmcache.cached
async def generated() -> AsyncIterator[int]:
    asked.append("an asynchronous generator")
    yield 1


async def read(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


Door = Callable[[Any], Awaitable[Any]]
DOORS: dict[str, Door] = {
    "create": lambda client: client.create(**CALL),
    "messages.create": lambda client: client.chat.completions.create(**CALL),
    "with_completion": lambda client: client.create_with_completion(**CALL),
    "no-store": lambda client: client.create(**CALL, cache_mode="no-store"),
    "raw": lambda client: client.create(**{**CALL, "response_model": None}),
    "partial": lambda client: read(client.create_partial(**CALL)),
    "iterable": lambda client: read(client.create_iterable(**CALL)),
    "acreate_many": lambda client: llmcache.acreate_many(client, [CALL]),
    "aexplain": lambda client: llmcache.aexplain(client, **CALL),
    "ainvalidate": lambda client: llmcache.ainvalidate(everything=True),
    "aflush": lambda client: llmcache.aflush(),
    "decorated": lambda client: decorated(),
    "decorated.reload": lambda client: decorated.reload(),
    "decorated.ainvalidate": lambda client: decorated.ainvalidate(),
    "decorated.aexplain": lambda client: decorated.aexplain(),
    "generated": lambda client: read(generated()),
}


@pytest.mark.parametrize("door", DOORS)
def test_trio_is_told_what_is_supported(model: StandIn, door: str) -> None:
    client = make_client(model, async_client=True)
    with pytest.raises(llmcache.UnsupportedEventLoop, match="asyncio") as raised:
        trio.run(DOORS[door], client)
    assert isinstance(raised.value, llmcache.LLMCacheError)
    assert not model.calls
    assert not asked


@pytest.mark.django_db(transaction=True)
def test_the_way_out_that_is_named_is_one(model: StandIn) -> None:
    client = make_client(model)

    async def main() -> list[Ticket]:
        return [await trio.to_thread.run_sync(lambda: client.create(**CALL)) for _ in range(2)]

    first, second = trio.run(main)
    assert first == second
    assert len(model.calls) == 1
