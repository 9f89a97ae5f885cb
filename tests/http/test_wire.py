"""What passes over the wire, and what an HTTP client does with it, stays as it is without."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from django.test import override_settings

import llmcache
from llmcache.exceptions import CacheMiss, InvalidArgument
from llmcache.models import CacheEntry
from tests.support.provider import ADDRESS, QUESTION, Provider, Said, streamed, whole

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = f"{ADDRESS}/chat/completions"


@pytest.fixture
def provider() -> Provider:
    return Provider(Said(whole(), headers={"x-request-id": "r1"}))


def sdk(provider: Provider, **options: Any) -> Any:
    plain = httpx2.Client(transport=provider.transport())
    client = openai.OpenAI(api_key="k", base_url=ADDRESS, http_client=plain, max_retries=2)
    return llmcache.wrap(client, **options)


def status_of(client: Any, **more: Any) -> str:
    headers = llmcache.headers(**more)
    raw = client.chat.completions.with_raw_response.create(**QUESTION, extra_headers=headers)
    assert raw.headers["x-request-id"] == "r1"
    assert raw.parse().choices[0].finish_reason == "stop"
    return str(raw.headers["cache-status"])


def test_the_status_of_a_response_says_how_it_was_answered(provider: Provider) -> None:
    client = sdk(provider, ttl=1000)
    assert status_of(client) == "llmcache; fwd=uri-miss; stored"
    assert status_of(client).startswith("llmcache; hit; ttl=")
    assert 0 < int(status_of(client).rpartition("=")[2]) <= 1000
    assert status_of(client, mode="reload") == "llmcache; fwd=request; stored"
    assert status_of(client, mode="no-store") == "llmcache; fwd=bypass"
    assert status_of(client, ttl=None, mode="reload") == "llmcache; fwd=request; stored"
    assert status_of(client) == "llmcache; hit"


def test_what_is_stale_has_no_time_to_live(provider: Provider) -> None:
    client = sdk(provider, ttl=0.05)
    status_of(client)
    time.sleep(0.1)
    assert status_of(client, mode="force-cache") in {
        "llmcache; hit; ttl=0",
        "llmcache; hit; ttl=-1",
    }


def test_a_response_is_streamed_as_it_was(provider: Provider) -> None:
    client = sdk(provider)
    for _ in range(2):
        with client.chat.completions.with_streaming_response.create(**QUESTION) as response:
            assert response.headers["content-type"] == "application/json"
            assert b"".join(response.iter_bytes()) == whole()
    assert len(provider.asked) == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_was_compressed_comes_back_plain(is_stream: bool) -> None:
    body = gzip.compress(b"".join(streamed()) if is_stream else whole())
    headers = {"content-encoding": "gzip"}
    provider = Provider(Said([body[:50], body[50:]] if is_stream else body, headers=headers))
    client = sdk(provider)
    ask = lambda: client.chat.completions.create(**QUESTION, stream=is_stream)  # noqa: E731
    live, stored = (list(ask()) if is_stream else ask() for _ in range(2))
    assert live == stored
    assert len(provider.asked) == 1


def test_a_redirect_is_followed_and_keeps_what_was_asked_of_the_cache() -> None:
    def said(request: Any) -> Said:
        if request.url.host == "new.example.com":
            return Said(whole())
        there = "https://new.example.com/v1/chat/completions"
        return Said(b"", 307, {"location": there})

    provider = Provider(said)
    transport = llmcache.http_transport(provider.transport())
    http = httpx2.Client(transport=transport, follow_redirects=True)
    tagged = llmcache.headers(tags=["t"])
    with llmcache.capture() as calls:
        for _ in range(2):
            assert http.post(CHAT, json=QUESTION, headers=tagged).content == whole()
    assert [(str(call.outcome), call.stored) for call in calls] == [
        *(("miss", False), ("miss", True), ("miss", False), ("hit", False))
    ]
    assert CacheEntry.objects.get().tags.get().tag == "t"
    assert all("x-llmcache" not in request.headers for request in provider.asked)


def test_hooks_proxies_and_mounts_are_kept(provider: Provider) -> None:
    told: list[str] = []
    other = Provider(Said(whole()))
    hooks: Any = {
        "request": [lambda request: told.append(request.url.host)],
        "response": [lambda response: told.append(response.headers["cache-status"])],
    }
    mounts = {"https://other.example.com": other.transport(), "https://none.example.com": None}
    plain = httpx2.Client(transport=provider.transport(), mounts=mounts, event_hooks=hooks)
    http = llmcache.wrap(plain)
    for host in ("api", "other", "none"):
        url = f"https://{host}.example.com/v1/chat/completions"
        for _ in range(2):
            http.post(url, json=QUESTION)
    assert (len(provider.asked), len(other.asked)) == (2, 1)
    assert told[:3] == ["api.example.com", "llmcache; fwd=uri-miss; stored", "api.example.com"]


def test_a_token_that_is_not_known_here_goes_past_the_cache(provider: Provider) -> None:
    client = sdk(provider)
    with llmcache.capture() as calls:
        for _ in range(2):
            client.chat.completions.create(**QUESTION, extra_headers={"x-llmcache": "?"})
    assert [(str(call.outcome), call.reason_code, call.model) for call in calls] == [
        ("bypass", "unknown-wishes", "m")
    ] * 2
    assert all("x-llmcache" not in request.headers for request in provider.asked)


def test_what_a_call_asks_of_the_cache_is_done_and_not_sent(provider: Provider) -> None:
    client = sdk(provider, tags=["client"])
    wishes: dict[str, Any] = {"ttl": 60, "tags": ["call"], "namespace": "n", "sample": 1}
    windows: dict[str, Any] = {"stale_while_revalidate": 5, "stale_if_error": 10}
    status_of(client, **wishes, **windows)
    entry = CacheEntry.objects.get()
    assert entry.namespace == "n"
    assert {tag.tag for tag in entry.tags.all()} == {"client", "call"}
    assert "hit" in status_of(client, **wishes)
    assert "uri-miss" in status_of(client, **wishes | {"sample": 2})
    assert all("x-llmcache" not in request.headers for request in provider.asked)


@pytest.mark.parametrize("maker", ["openai", "anthropic", "httpx2"])
def test_errors_that_were_asked_for_come_through(provider: Provider, maker: str) -> None:
    http = httpx2.Client(transport=llmcache.http_transport(provider.transport()))
    of_openai: Any = openai.OpenAI(api_key="k", base_url=ADDRESS, http_client=http)
    of_anthropic: Any = anthropic.Anthropic(api_key="k", base_url=ADDRESS, http_client=http)
    ask: Any = {
        "openai": lambda: of_openai.chat.completions.create(**QUESTION),
        "anthropic": lambda: of_anthropic.messages.create(**QUESTION, max_tokens=9),
        "httpx2": lambda: http.post(CHAT, json=QUESTION),
    }[maker]
    with llmcache.override(mode="only-if-cached"), pytest.raises(CacheMiss):
        ask()
    with (
        override_settings(LLMCACHE={"REQUIRE_NAMESPACE": True}),
        pytest.raises(InvalidArgument, match="REQUIRE_NAMESPACE"),
    ):
        ask()
    assert not provider.asked


def test_without_a_namespace_nothing_is_kept(provider: Provider, settings: Any) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "NAMESPACE": None}
    client = sdk(provider)
    with llmcache.capture() as calls:
        assert "bypass" in status_of(client)
        assert "uri-miss" in status_of(client, namespace="n")
        with llmcache.override(namespace="n"):
            assert "hit" in status_of(client)
    assert calls[0].reason_code == "no-namespace"
    assert 'name it with llmcache.headers(namespace="...")' in calls[0].reason
    assert calls[0].model == "m"
    assert json.loads(provider.asked[0].content) == QUESTION
