"""What must not be mixed up, what must not be kept, and clients that are built in unusual ways."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx2
import openai
import pytest
from django.db import connections

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CLOSE, MESSAGES
from tests.support.dialects import Model
from tests.support.http import openai as make_openai

pytestmark = pytest.mark.django_db(transaction=True)


def sdk(model: StandIn, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=model.url, **options)


def chat(client: Any, **more: Any) -> Any:
    asked = {"model": "gpt-4.1-mini", "messages": MESSAGES} | more
    return client.chat.completions.create(**asked)


def with_options(model: StandIn, headers: dict[str, str]) -> Any:
    return llmcache.wrap(sdk(model)).with_options(default_headers=headers | CLOSE)


def with_a_client(model: StandIn, headers: dict[str, str]) -> Any:
    http = httpx2.Client(headers=headers | CLOSE)
    return llmcache.wrap(sdk(model, http_client=http))


@pytest.mark.parametrize("make", [with_options, with_a_client])
def test_a_header_counts_wherever_a_client_has_it_from(model: StandIn, make: Any) -> None:
    with llmcache.capture() as calls:
        for tier in ("a", "b", "a"):
            chat(make(model, {"X-Gateway-Tier": tier}))
    assert [call.outcome for call in calls] == ["miss", "miss", "hit"]


def test_a_model_that_is_no_text_counts(model: StandIn) -> None:
    http = llmcache.http_client()
    with llmcache.capture() as calls:
        for name in (["a"], ["b"], 7):
            body = {"model": name, "messages": MESSAGES}
            http.post(f"{model.url}/chat/completions", json=body, headers=CLOSE)
    http.close()
    assert len({call.key for call in calls}) == 3


@pytest.mark.filterwarnings("ignore")  # (of a socket that httpcore leaves open)
def test_two_sockets_of_one_address_are_two_endpoints() -> None:
    keys = set()
    for path in ("a.sock", "b.sock"):
        transport = llmcache.http_transport(httpx2.HTTPTransport(uds=f"/nowhere/{path}"))
        with httpx2.Client(transport=transport) as http, llmcache.capture() as calls:
            with pytest.raises(httpx2.ConnectError):
                http.post("http://local/v1/chat/completions", json={"messages": MESSAGES})
            keys.add(calls[0].key)
    assert len(keys) == 2


def test_no_credential_in_the_body_or_in_a_response_is_kept(model: StandIn) -> None:
    secret = "s3cr3t-of-alice"
    tool: dict[str, Any] = {"type": "mcp", "server_url": f"https://x:{secret}@h/sse?key={secret}"}
    tool |= {"authorization": secret, "headers": {"Authorization": f"Bearer {secret}"}}

    def answered(request: Any) -> Any:
        told = json.loads(request.content)
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "Hello."}}
        return httpx2.Response(
            200,
            json={"object": "chat.completion", "model": told["model"], "choices": [choice]},
            headers={"openai-organization": secret, "x-auth-token": secret, "x-request-id": "r1"},
        )

    transport = llmcache.http_transport(httpx2.MockTransport(answered), ttl=60)
    client = openai.OpenAI(
        api_key="k", base_url=model.url, http_client=httpx2.Client(transport=transport)
    )
    live = chat(client.with_raw_response, extra_body={"tools": [tool]})
    assert live.headers["x-auth-token"] == secret
    hit = chat(client.with_raw_response, extra_body={"tools": [tool]})
    assert "hit" in hit.headers["cache-status"]
    assert hit.headers["x-request-id"] == "r1"
    assert "x-auth-token" not in hit.headers
    row = durable.entries().get()
    kept = bytes(row.request or b"") + bytes(row.payload) + row.endpoint.encode()
    assert b"https://" in kept
    assert secret.encode() not in kept


class Mine(openai.OpenAI):
    """As projects derive one."""


def test_a_derived_class_is_wrapped_although_it_was_used(model: StandIn) -> None:
    client = Mine(api_key="k", base_url=model.url, default_headers=CLOSE)
    assert client.chat.completions is not None
    wrapped = llmcache.wrap(client)
    with llmcache.capture() as calls:
        chat(wrapped)
        chat(wrapped)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    assert type(wrapped) is Mine


def test_a_function_with_a_variable_without_value_does_no_harm(model: StandIn) -> None:
    client = sdk(model, default_headers=CLOSE)

    def made() -> Any:
        def later() -> Any:
            return value

        vars(client)["later"] = later
        later.__module__ = "openai"
        if not client.api_key:
            value = 1
        return later

    made()
    with llmcache.capture() as calls:
        chat(llmcache.wrap(client))
    assert [call.outcome for call in calls] == ["miss"]


def test_a_whole_stream_that_is_left_is_kept_however_large_its_last_event_is() -> None:
    with Model() as dialects:
        client = llmcache.wrap(make_openai(dialects.root, False))
        with llmcache.capture() as calls:
            for _ in range(2):
                question = "Which city? " + "x" * 5000
                with client.responses.create(model="m", input=question, stream=True) as stream:
                    for event in stream:
                        if event.type == "response.completed":
                            break
        client.close()
    assert [call.outcome for call in calls] == ["miss", "hit"], calls


def test_no_body_is_kept_for_asking_again(model: StandIn) -> None:
    client: Any = llmcache.wrap(sdk(model, default_headers=CLOSE))
    chat(client)
    [seen] = client._client._transport.door.seen.values()
    assert not hasattr(seen, "_content")
    assert not hasattr(seen, "stream")
    assert seen.headers["authorization"] == "Bearer k"


def test_who_waits_for_another_one_waits_no_longer_than_for_the_provider(model: StandIn) -> None:
    """In line, it is as patient as its own time-out; then it asks for itself."""
    began, goes_on = threading.Event(), threading.Event()

    def answered(request: Any) -> Any:
        began.set()
        assert goes_on.wait(60)
        return httpx2.Response(503)

    door = llmcache.http_transport(httpx2.MockTransport(answered))
    slow = threading.Thread(target=post, args=(model, door))
    slow.start()
    assert began.wait(60)
    client = llmcache.wrap(sdk(model, default_headers=CLOSE, timeout=0.2))
    with llmcache.capture() as calls:
        chat(client)
    assert [call.outcome for call in calls] == ["miss"]
    assert not goes_on.is_set()
    goes_on.set()
    slow.join()


def post(model: StandIn, transport: Any) -> None:
    with httpx2.Client(transport=transport) as http:
        body = {"messages": MESSAGES, "model": "gpt-4.1-mini"}
        http.post(f"{model.url}/chat/completions", json=body)
    connections.close_all()
