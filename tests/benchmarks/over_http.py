"""The rows of the SDK of OpenAI: over a transport in memory, and over llmcache's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import openai

import llmcache
from tests.benchmarks.question import MODEL
from tests.benchmarks.rows import Ask, Bench, row
from tests.support.servers import RedisServer


def _sdk(bench: Bench, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=bench.standin.url, api_key="any", **options)


def _asking(bench: Bench, client: Any) -> Ask:
    """The question, by `client`; asked for text."""
    model = MODEL.partition("/")[2]
    create: Callable[..., Any] = client.chat.completions.create
    return partial(create, model=model, messages=bench.question.messages)


@row("openai's SDK: a transport in memory")
def sdk_in_memory(bench: Bench) -> Ask:
    """What the SDK takes for itself, with the bytes of the answer at hand."""
    live = _asking(bench, _sdk(bench).with_raw_response)
    answer = live().http_response
    content, kind = answer.content, {"content-type": answer.headers["content-type"]}
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers=kind, content=content)
    )
    return _asking(bench, _sdk(bench, http_client=httpx2.Client(transport=transport)))


@row("llmcache: openai's SDK over HTTP, Redis", RedisServer, tier="hot", CACHE="redis")
def sdk_from_redis(bench: Bench) -> Ask:
    return _asking(bench, llmcache.wrap(_sdk(bench)))


@row("llmcache: openai's SDK over HTTP, Redis, async", RedisServer, tier="hot", CACHE="redis")
def sdk_from_redis_async(bench: Bench) -> Ask:
    client = openai.AsyncOpenAI(base_url=bench.standin.url, api_key="any")
    ask = _asking(bench, llmcache.wrap(client))

    async def ask_on_the_loop() -> Any:
        return await ask()

    return ask_on_the_loop
