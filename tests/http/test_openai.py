"""The SDK of OpenAI, with the transport inside."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

import llmcache
from llmcache.doors.replay import NotRebuildable, ask_again
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CLOSE, MESSAGES, outcomes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client(model: StandIn) -> Any:
    sdk = openai.OpenAI(api_key="k", base_url=model.url, default_headers=CLOSE)
    return llmcache.wrap(sdk, namespace="support")


def chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES, **more)


def test_a_completion_is_paid_for_once(model: StandIn, client: Any) -> None:
    with llmcache.capture() as calls:
        live, stored = chat(client), chat(client)
    assert type(client) is openai.OpenAI
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]
    assert len(model.calls) == 1
    assert stored.to_dict() == live.to_dict()


def test_a_stream_is_replayed_chunk_by_chunk(model: StandIn, client: Any) -> None:
    with llmcache.capture() as calls:
        live = [chunk.to_dict() for chunk in chat(client, stream=True)]
        stored = [chunk.to_dict() for chunk in chat(client, stream=True)]
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]
    assert len(model.calls) == 1
    assert stored == live


def test_an_entry_is_asked_again_by_the_client_that_asked(model: StandIn, client: Any) -> None:
    with llmcache.capture() as calls:
        chat(client)
    assert ask_again(durable.entries().get(key=calls[0].key)).stored
    assert len(model.calls) == 2
    first, again = model.calls
    assert again.body == first.body
    assert again.headers["authorization"] == first.headers["authorization"]


def test_without_such_a_client_it_says_what_is_missing(model: StandIn, client: Any) -> None:
    with llmcache.capture() as calls:
        chat(client)
    client._client._transport.door.seen.clear()
    with pytest.raises(NotRebuildable, match="no HTTP client of this process has asked"):
        ask_again(durable.entries().get(key=calls[0].key))


def test_a_stale_answer_is_refreshed_behind_the_caller(model: StandIn, client: Any) -> None:
    stale = llmcache.headers(ttl=0.01, stale_while_revalidate=60)
    with llmcache.capture() as calls:
        for _ in range(2):
            chat(client, extra_headers=stale)
            time.sleep(0.05)
    assert outcomes(calls) == [("miss", None), ("stale", "durable")]
    wait_until(lambda: len(model.calls) == 2)
    assert "x-llmcache" not in model.calls[0].headers
