"""The SDK of OpenAI, with the transport inside."""

from __future__ import annotations

from typing import Any

import openai
import pytest

import llmcache
from project.standin.server import StandIn
from tests.support.clients import CLOSE, MESSAGES, outcomes

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
