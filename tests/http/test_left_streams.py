"""Streams on an event loop that are left open, which the loop closes by itself."""

from __future__ import annotations

import asyncio
import gc
import traceback
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

import llmcache
from project.standin.server import StandIn
from tests.support.clients import CLOSE
from tests.support.provider import QUESTION
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PACKAGE = str(Path(llmcache.__file__).parent)


def is_ours(context: dict[str, Any]) -> bool:
    """Whether a complaint of a loop may be about a generator of ours: HTTP clients have theirs."""
    stack = traceback.extract_tb(context["exception"].__traceback__)
    places = [frame.filename for frame in stack]
    if "asyncgen" in context:
        places.append(context["asyncgen"].ag_code.co_filename)
    return not places or any(place.startswith(PACKAGE) for place in places)


@pytest.mark.parametrize("until", ["garbage is collected", "the loop ends"])
def test_a_stream_that_is_left_open_is_closed_without_a_word(model: StandIn, until: str) -> None:
    model.chunk_delay = 0.2
    told: list[dict[str, Any]] = []
    left: list[Any] = []
    sdk = llmcache.wrap(openai.AsyncOpenAI(api_key="k", base_url=model.url, default_headers=CLOSE))

    async def leave() -> None:
        stream: Any = await sdk.chat.completions.create(**QUESTION, stream=True)  # type: ignore[call-overload]
        async for _ in stream:
            break
        left.append(stream)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        await leave()
        if until == "garbage is collected":
            left.clear()
            while not model.abandoned_streams:
                gc.collect()
                await asyncio.sleep(0.02)

    with llmcache.capture() as calls:
        asyncio.run(run())
    wait_until(lambda: model.abandoned_streams)
    assert not list(filter(is_ours, told))
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)]


def test_a_stream_in_a_scope_of_anyio_that_is_cancelled_is_closed(model: StandIn) -> None:
    # (as of Starlette, where the browser goes away: each wait of who is cancelled raises)
    model.chunk_delay = 0.2
    sdk = llmcache.wrap(openai.AsyncOpenAI(api_key="k", base_url=model.url, default_headers=CLOSE))

    async def run() -> list[int]:
        with anyio.CancelScope() as scope:
            stream: Any = await sdk.chat.completions.create(**QUESTION, stream=True)  # type: ignore[call-overload]
            async with stream:
                async for _ in stream:
                    scope.cancel()
        # (before the loop ends, which would close it, too)
        await asyncio.to_thread(wait_until, lambda: model.abandoned_streams)
        return [model.abandoned_streams, model.open_streams]

    assert asyncio.run(run()) == [1, 0]
