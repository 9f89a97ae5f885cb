"""Which requests share an entry, and which have none."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

import llmcache
from tests.support.clients import outcomes
from tests.support.provider import ADDRESS, QUESTION, Provider, Said, streamed, whole

pytestmark = pytest.mark.django_db

CHAT = f"{ADDRESS}/chat/completions"
MESSAGES = [{"role": "user", "content": "Which city?"}]


@pytest.fixture
def provider() -> Provider:
    return Provider(Said(whole()))


def client(provider: Provider, **options: Any) -> Any:
    headers = options.pop("headers", {})
    transport = llmcache.http_transport(provider.transport(), **options)
    return httpx2.Client(transport=transport, headers=headers)


def asked(provider: Provider, *bodies: Any, **options: Any) -> list[str]:
    """The outcomes of posting these, one after the other."""
    with llmcache.capture() as calls, client(provider, **options) as http:
        for body in bodies:
            http.post(CHAT, content=body if isinstance(body, bytes) else json.dumps(body).encode())
    return [str(call.outcome) for call in calls]


def test_an_sdk_and_a_plain_client_share_an_entry(provider: Provider) -> None:
    sdk = openai.OpenAI(api_key="k", base_url=ADDRESS, http_client=client(provider))
    with llmcache.capture() as calls:
        sdk.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
        response = client(provider).post(CHAT, json={"messages": MESSAGES, "model": "m"})
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]
    assert response.json() == json.loads(whole())


def test_the_two_libraries_share_an_entry(provider: Provider) -> None:
    transport = llmcache.http_transport(provider.transport(httpx))
    with llmcache.capture() as calls, httpx.Client(transport=transport) as old:
        client(provider).post(CHAT, json=QUESTION)
        old.post(CHAT, json=QUESTION)
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]


def test_rotating_a_key_keeps_the_entries(provider: Provider) -> None:
    with llmcache.capture() as calls:
        for key in ("old", "new"):
            http = client(provider)
            sdk = openai.OpenAI(api_key=key, base_url=ADDRESS, organization=key, http_client=http)
            sdk.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "a"}, {"x-api-key": "a"}, {"x-request-id": "a"}, {"user-agent": "a"}],
    ids=str,
)
def test_headers_that_do_not_count(provider: Provider, headers: dict[str, str]) -> None:
    asked(provider, QUESTION)
    assert asked(provider, QUESTION, headers=headers) == ["hit"]


@pytest.mark.parametrize(
    "headers", [{"openai-beta": "a"}, {"x-tenant": "a"}, {"host": "other.example.com"}], ids=str
)
def test_headers_that_count(provider: Provider, headers: dict[str, str]) -> None:
    asked(provider, QUESTION)
    assert asked(provider, QUESTION, headers=headers) == ["miss"]
    assert asked(provider, QUESTION, headers=headers) == ["hit"]


def test_a_header_that_is_excluded_does_not_count(provider: Provider) -> None:
    asked(provider, QUESTION)
    assert asked(provider, QUESTION, headers={"X-Shard": "7"}, exclude=["X-Shard"]) == ["hit"]


def test_the_beta_headers_of_an_sdk_count() -> None:
    provider = Provider(Said(whole("/messages")))
    sdk = anthropic.Anthropic(api_key="k", http_client=client(provider))
    more: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
    with llmcache.capture() as calls:
        sdk.messages.create(**more)
        sdk.messages.create(**more, extra_headers={"anthropic-beta": "b"})
        sdk.messages.create(**more, extra_headers={"anthropic-beta": "b"})
    assert [call.outcome for call in calls] == ["miss", "miss", "hit"]


@pytest.mark.parametrize(
    ("one", "two"), [("?key=a", "?key=b"), ("?key=a", ""), ("?api_key=a", "?api_key=b")]
)
def test_credentials_in_the_address_do_not_count(one: str, two: str) -> None:
    provider = Provider(Said(whole(":generateContent")))
    url = "https://g.example.com/v1/models/m:generateContent"
    with llmcache.capture() as calls, client(provider) as http:
        http.post(url + one, json={"contents": []})
        http.post(url + two, json={"contents": []})
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]


@pytest.mark.parametrize("url", ["https://eu.example.com/v1/chat/completions", f"{CHAT}?v=2"])
def test_another_address_is_another_entry(provider: Provider, url: str) -> None:
    with llmcache.capture() as calls, client(provider) as http:
        http.post(CHAT, json=QUESTION)
        http.post(url, json=QUESTION)
    assert [call.outcome for call in calls] == ["miss", "miss"]


@pytest.mark.parametrize(
    "more",
    [{"temperature": 0.0}, {"user": "u"}, {"prompt_cache_key": "p"}, {"safety_identifier": "s"}],
    ids=str,
)
def test_what_cannot_change_the_answer_does_not_count(
    provider: Provider, more: dict[str, Any]
) -> None:
    asked(provider, {**QUESTION, "temperature": 0})
    assert asked(provider, {**QUESTION, "temperature": 0, **more}) == ["hit"]
    assert json.loads(provider.asked[0].content).get("temperature") == 0


def test_what_is_excluded_is_sent_and_does_not_count(provider: Provider) -> None:
    first, second = ({**QUESTION, "shard": shard} for shard in (1, 2))
    assert asked(provider, first, second, exclude=["shard"]) == ["miss", "hit"]
    assert json.loads(provider.asked[0].content)["shard"] == 1


@pytest.mark.parametrize("more", [{"unheard_of": 1}, {"temperature": 1}, {"seed": "1"}], ids=str)
def test_whatever_else_is_sent_counts(provider: Provider, more: dict[str, Any]) -> None:
    assert asked(provider, QUESTION, {**QUESTION, **more}) == ["miss", "miss"]


def test_the_order_of_fields_counts_in_a_schema_alone(provider: Provider) -> None:
    def question(*names: str) -> dict[str, Any]:
        properties = {name: {"type": "string"} for name in names}
        schema = {"name": "s", "schema": {"type": "object", "properties": properties}}
        asks = {"type": "json_schema", "json_schema": schema}
        return {"response_format": asks, **QUESTION, "metadata": dict.fromkeys(names, "")}

    turned = dict(reversed(question("a", "b").items()))
    assert asked(provider, question("a", "b"), turned) == ["miss", "hit"]
    assert asked(provider, {**QUESTION, "metadata": {"a": "", "b": ""}}) == ["miss"]
    assert asked(provider, {**QUESTION, "metadata": {"b": "", "a": ""}}) == ["hit"]
    assert asked(provider, question("b", "a")) == ["miss"]


def test_a_prompt_that_is_stored_counts_with_its_version() -> None:
    provider = Provider(Said(whole("/responses")))
    prompts: list[Any] = [
        *({"id": "pmpt_1", "version": "2"}, {"id": "pmpt_1", "version": "2"}),
        *({"id": "pmpt_1", "version": "3"}, {"id": "pmpt_1"}, {"id": "pmpt_1"}),
    ]
    with llmcache.capture() as calls, client(provider) as http:
        for prompt in prompts:
            http.post(f"{ADDRESS}/responses", json={"model": "m", "prompt": prompt})
        http.post(f"{ADDRESS}/responses", json={"model": "m", "prompt": prompts[3], "input": "?"})
    found = [str(call.outcome) for call in calls]
    assert found == ["miss", "hit", "miss", "bypass", "bypass", "bypass"]
    assert "a stored prompt without a version" in str(calls[-1].reason)
    with llmcache.capture() as calls, client(provider, ttl=60) as http:
        for _ in range(2):
            http.post(f"{ADDRESS}/responses", json={"model": "m", "prompt": prompts[3]})
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"messages": [], "model": "m", "n": 1, "n": 2}', b'{"messages": [], "seed": NaN}'),
        *(b"messages", b"", b"[1]", b'{"model": "m"}', b"[" * 100_000, b"\xff\xfe"),
        *(b'{"messages": [], "seed": 1e999}', b'{"messages": [], "seed": ' + b"9" * 5000 + b"}"),
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_what_has_no_key_passes_untouched(provider: Provider, body: bytes) -> None:
    assert asked(provider, body, body) == ["bypass", "bypass"]
    assert [request.content for request in provider.asked] == [body, body]


def test_files_pass_untouched(provider: Provider) -> None:
    with llmcache.capture() as calls, client(provider) as http:
        for _ in range(2):
            http.post(CHAT, files={"file": b"x" * 10}, data={"model": "m"})
            http.post(f"{ADDRESS}/images/generations", json={"prompt": "a cat"})
            http.post(CHAT, content=iter([b'{"model": "m", ', b'"messages": []}']))
    assert [str(call.outcome) for call in calls] == ["bypass"] * 6
    assert calls[1].reason_code == "unknown-address"
    assert b'filename="upload"' in provider.asked[0].content
    assert provider.asked[2].content == b'{"model": "m", "messages": []}'


def test_what_no_dialect_knows_is_not_held_up(provider: Provider) -> None:
    provider.said = Said(streamed())
    with client(provider) as http, http.stream("POST", f"{ADDRESS}/audio/speech", json={}) as came:
        chunks = came.iter_raw()
        assert next(chunks) == streamed()[0]
        assert provider.told == ["chunk 0"]
        assert came.headers["cache-status"] == "llmcache; fwd=bypass"
    assert provider.told == ["chunk 0", "closed"]


def test_a_thread_of_messages_is_no_question_to_a_model(provider: Provider) -> None:
    with llmcache.capture() as calls, client(provider) as http:
        http.post(f"{ADDRESS}/threads/t1/messages", json={"role": "user", "content": "Hello."})
        http.post(f"{ADDRESS}/threads/t1/messages", json={"messages": []})
    assert [call.outcome for call in calls] == ["bypass", "bypass"]


def test_what_is_not_posted_is_not_counted(provider: Provider) -> None:
    with llmcache.capture() as calls, client(provider) as http:
        response = http.get(f"{ADDRESS}/models", headers=llmcache.headers(ttl=1))
    assert calls == []
    assert "x-llmcache" not in provider.asked[0].headers
    assert "cache-status" not in response.headers
