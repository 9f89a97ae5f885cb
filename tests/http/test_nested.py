"""A client with the transport inside of another way in: who stores, and who counts."""

from __future__ import annotations

import asyncio
from typing import Any

import instructor
import openai
import pytest

import llmcache
from llmcache.models import CacheEntry
from project.standin.server import StandIn
from tests.support.clients import CLOSE, MESSAGES
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

TICKET = {"title": "Fire", "priority": 1}
CREATE = {"whole": "create", "stream": "create_partial"}


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


class Asking:
    """A wrapped client of instructor, over a wrapped SDK."""

    def __init__(self, model: StandIn, is_async: bool) -> None:
        self.is_async = is_async
        cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        self.sdk = llmcache.wrap(
            cls(api_key="k", base_url=model.url, default_headers=CLOSE, max_retries=0)
        )
        self.client: Any = llmcache.wrap(instructor.from_openai(self.sdk), model="gpt-4.1-mini")

    def ask(self, way: str, **more: Any) -> list[tuple[str, bool]]:
        """The outcomes of asking once."""
        with llmcache.capture() as calls:
            create = getattr(self.client, CREATE[way])
            asked = create(response_model=Ticket, messages=MESSAGES, **more)
            if self.is_async:
                asyncio.run(self._read(asked))
            elif way == "stream":
                list(asked)
        return [(str(call.outcome), call.stored) for call in calls]

    async def _read(self, asked: Any) -> None:
        if hasattr(asked, "__await__"):
            await asked
        else:
            [item async for item in asked]


@pytest.mark.parametrize("way", CREATE)
def test_of_two_ways_in_the_outer_one_stores(model: StandIn, is_async: bool, way: str) -> None:
    model.behaviour.answer_with = TICKET
    asking = Asking(model, is_async)
    assert asking.ask(way) == [("miss", True)]
    assert asking.ask(way) == [("hit", False)]
    assert asking.ask(way, cache_mode="reload") == [("reload", True)]
    assert [entry.mode for entry in CacheEntry.objects.all()] == ["tool_call"]
    assert len(model.calls) == 2


@pytest.mark.parametrize("way", CREATE)
def test_past_the_outer_one_is_past_both(model: StandIn, is_async: bool, way: str) -> None:
    model.behaviour.answer_with = TICKET
    asking = Asking(model, is_async)
    for _ in range(2):
        assert asking.ask(way, cache_mode="no-store") == [("bypass", False)]
    assert len(model.calls) == 2
    assert not CacheEntry.objects.exists()


@pytest.mark.parametrize("way", CREATE)
def test_what_the_outer_one_cannot_key_is_asked(model: StandIn, is_async: bool, way: str) -> None:
    model.behaviour.answer_with = TICKET
    asking = Asking(model, is_async)
    for _ in range(2):
        assert asking.ask(way, context={"f": len}) == [("bypass", False)]
    assert len(model.calls) == 2
    assert not CacheEntry.objects.exists()


def chat(sdk: Any) -> str:
    answer = sdk.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES)
    return str(answer.choices[0].message.content)


def test_inside_of_a_function_each_call_keeps_its_entry(model: StandIn) -> None:
    sdk = Asking(model, False).sdk

    @llmcache.cached(exclude=["sdk"])
    def summary() -> str:
        return chat(sdk) + chat(sdk)

    with llmcache.capture() as calls:
        assert summary() == summary()
    assert [str(call.outcome) for call in calls] == ["miss", "hit", "miss", "hit"]
    assert CacheEntry.objects.count() == 2
    llmcache.invalidate(keys=[calls[0].key])
    assert not CacheEntry.objects.exists()


def test_a_function_asked_anew_asks_the_model_anew(model: StandIn) -> None:
    sdk = Asking(model, False).sdk

    @llmcache.cached(exclude=["sdk"])
    def summary() -> str:
        return chat(sdk)

    summary()
    with llmcache.capture() as calls:
        summary.reload()
    assert [str(call.outcome) for call in calls] == ["reload", "reload"]
    assert len(model.calls) == 2


def test_a_client_that_is_wrapped_is_wrapped_anew(model: StandIn) -> None:
    once = Asking(model, False).sdk
    twice = llmcache.wrap(llmcache.wrap(once, namespace="a"), namespace="b")
    with llmcache.capture() as calls:
        assert chat(twice) == chat(twice)
    assert [(str(call.outcome), call.namespace) for call in calls] == [("miss", "b"), ("hit", "b")]


def test_a_transport_deep_inside_of_another_does_not_wait_for_it(model: StandIn) -> None:
    import httpx2

    class Between(httpx2.BaseTransport):
        def __init__(self) -> None:
            self.inner = llmcache.http_transport(httpx2.HTTPTransport())

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response: httpx2.Response = self.inner.handle_request(request)
            return response

    http = httpx2.Client(transport=llmcache.http_transport(Between()))
    sdk = openai.OpenAI(api_key="k", base_url=model.url, default_headers=CLOSE, http_client=http)
    with llmcache.capture() as calls:
        assert chat(sdk) == chat(sdk)
    assert [str(call.outcome) for call in calls] == ["miss", "hit"]
    http.close()
