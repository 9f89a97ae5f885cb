"""Retries and errors are those of the SDK; a stale answer serves where it would give up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import llmcache
from llmcache.models import CacheEntry
from tests.support.provider import ADDRESS, Provider, Said, streamed, whole

pytestmark = pytest.mark.django_db(transaction=True)

MESSAGES: Any = [{"role": "user", "content": "Which city?"}]
TTL = 0.05
FAILURES: dict[str, Said | Exception] = {
    "429": Said(b'{"error": {"message": "slow down"}}', 429),
    "500": Said(b'{"error": {"message": "oh"}}', 500),
    "time-out": httpx2.ReadTimeout("late"),
    "connection": httpx2.ConnectError("nobody there"),
}


class Sdk:
    """OpenAI's, sync or async, plain or wrapped, over a provider; a stream or not."""

    def __init__(self, provider: Provider, is_async: bool, is_stream: bool, **more: Any) -> None:
        self.is_async, self.is_stream = is_async, is_stream
        library: Any = httpx2.AsyncClient if is_async else httpx2.Client
        cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        http = library(transport=more.pop("transport", None) or provider.transport())
        more = {"max_retries": 2} | more
        self.client = cls(api_key="k", base_url=ADDRESS, http_client=http, **more)

    def wrapped(self, **options: Any) -> Sdk:
        self.client = llmcache.wrap(self.client, **options)
        return self

    def ask(self, **more: Any) -> Any:
        asked = self.client.chat.completions.create(
            model="m", messages=MESSAGES, stream=self.is_stream, **more
        )
        if self.is_async:
            return asyncio.run(self._read(asked))
        return [chunk.to_dict() for chunk in asked] if self.is_stream else asked.to_dict()

    async def _read(self, asked: Any) -> Any:
        came = await asked
        return [chunk.to_dict() async for chunk in came] if self.is_stream else came.to_dict()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs wait between two attempts: not in these tests."""
    for module in (openai, anthropic):
        base = module._base_client.BaseClient
        monkeypatch.setattr(base, "_calculate_retry_timeout", lambda *_: 0.0)


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture(params=["whole", "stream"])
def is_stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "stream")


@pytest.fixture
def good(is_stream: bool) -> Said:
    return Said(streamed() if is_stream else whole())


@pytest.fixture(params=FAILURES)
def failure(request: pytest.FixtureRequest) -> Said | Exception:
    return FAILURES[request.param]


def raised(ask: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - compared with another
        ask()
    return type(caught.value), str(caught.value)


def attempts(provider: Provider) -> list[str]:
    return [request.headers["x-stainless-retry-count"] for request in provider.asked]


def test_a_failure_is_raised_as_without(
    is_async: bool, is_stream: bool, failure: Said | Exception
) -> None:
    plain, ours = Provider(failure), Provider(failure)
    expected = raised(Sdk(plain, is_async, is_stream).ask)
    assert raised(Sdk(ours, is_async, is_stream).wrapped(stale_if_error=60).ask) == expected
    assert attempts(ours) == attempts(plain) == ["0", "1", "2"]
    assert not CacheEntry.objects.exists()


def test_the_next_attempt_is_made_and_kept(
    is_async: bool, is_stream: bool, failure: Said | Exception, good: Said
) -> None:
    provider = Provider(lambda _: failure if len(provider.asked) == 1 else good)
    sdk = Sdk(provider, is_async, is_stream).wrapped()
    with llmcache.capture() as calls:
        assert sdk.ask() == sdk.ask()
    assert [(call.outcome, call.stored) for call in calls] == [
        *(("miss", False), ("miss", True), ("hit", False))
    ]
    assert calls[0].spent is None
    assert attempts(provider) == ["0", "1"]


def expired(provider: Provider, sdk: Sdk, good: Said, failure: Said | Exception) -> Any:
    """What was answered, and has expired; the provider fails from now on."""
    provider.said = good
    answer = sdk.ask(extra_headers=llmcache.headers(ttl=TTL))
    time.sleep(2 * TTL)
    provider.said, provider.asked = failure, []
    return answer


def test_a_stale_answer_serves_where_the_sdk_would_give_up(
    is_async: bool, is_stream: bool, failure: Said | Exception, good: Said
) -> None:
    provider = Provider(good)
    sdk = Sdk(provider, is_async, is_stream).wrapped(stale_if_error=60)
    answer = expired(provider, sdk, good, failure)
    with llmcache.capture() as calls:
        assert sdk.ask() == answer
    assert attempts(provider) == ["0", "1", "2"]
    assert [call.outcome for call in calls] == ["miss", "miss", "stale"]


def test_a_failure_of_the_callers_making_is_raised(
    is_async: bool, is_stream: bool, good: Said
) -> None:
    provider = Provider(good)
    sdk = Sdk(provider, is_async, is_stream).wrapped(stale_if_error=60)
    expired(provider, sdk, good, Said(b'{"error": {"message": "no such model"}}', 404))
    assert raised(sdk.ask)[0] is openai.NotFoundError


@pytest.mark.parametrize(("retries", "is_served"), [(None, False), (0, True), (2, False)])
def test_a_bare_transport_has_to_be_told_of_the_retries(
    is_async: bool, is_stream: bool, good: Said, retries: int | None, is_served: bool
) -> None:
    provider = Provider(good)
    transport = llmcache.http_transport(provider.transport(), stale_if_error=60, retries=retries)
    sdk = Sdk(provider, is_async, is_stream, transport=transport, max_retries=0)
    answer = expired(provider, sdk, good, FAILURES["500"])
    if is_served:
        assert sdk.ask() == answer
    else:
        assert raised(sdk.ask)[0] is openai.InternalServerError


@pytest.mark.parametrize("retries", [0, 3])
def test_a_copy_with_other_options_counts_its_own_retries(
    is_async: bool, is_stream: bool, good: Said, retries: int
) -> None:
    provider = Provider(good)
    sdk = Sdk(provider, is_async, is_stream).wrapped(stale_if_error=60, namespace="a")
    sdk.client = sdk.client.with_options(timeout=9).copy(max_retries=retries)
    answer = expired(provider, sdk, good, FAILURES["500"])
    with llmcache.capture() as calls:
        assert sdk.ask() == answer
    assert attempts(provider) == [str(number) for number in range(retries + 1)]
    assert [call.outcome for call in calls] == ["miss"] * retries + ["stale"]
    assert {call.namespace for call in calls} == {"a"}


def test_a_copy_that_is_given_an_http_client_asks_by_that() -> None:
    one, other = Provider(Said(whole())), Provider(Said(whole()))
    sdk = Sdk(one, False, False).wrapped(namespace="a")
    http = llmcache.wrap(httpx2.Client(transport=other.transport()), namespace="b")
    sdk.client = sdk.client.with_options(http_client=http)
    with llmcache.capture() as calls:
        sdk.ask()
    assert [call.namespace for call in calls] == ["b"]
    assert len(other.asked) == 1


def test_a_transport_that_was_told_serves_in_the_last_attempt() -> None:
    provider, good = Provider(Said(whole())), Said(whole())
    transport = llmcache.http_transport(provider.transport(), stale_if_error=60, retries=1)
    sdk = Sdk(provider, False, False, transport=transport, max_retries=1)
    answer = expired(provider, sdk, good, FAILURES["500"])
    assert sdk.ask() == answer
    assert attempts(provider) == ["0", "1"]


def test_anthropics_attempts_are_counted() -> None:
    provider = Provider(Said(whole("/messages")))
    http = httpx2.Client(transport=provider.transport())
    sdk = anthropic.Anthropic(api_key="k", http_client=http, max_retries=1)
    client = llmcache.wrap(sdk, stale_if_error=60, ttl=TTL)
    ask = lambda: client.messages.create(model="m", max_tokens=9, messages=MESSAGES)  # noqa: E731
    answer = ask()
    time.sleep(2 * TTL)
    provider.said, provider.asked = FAILURES["500"], []
    assert ask() == answer
    assert attempts(provider) == ["0", "1"]


def test_a_stream_that_fails_in_the_middle_is_not_served_from_elsewhere(is_async: bool) -> None:
    good = Said(streamed())
    provider = Provider(good)
    sdk = Sdk(provider, is_async, True).wrapped(stale_if_error=60)
    broken = Said(streamed()[:3], fails=httpx2.ReadError("gone"))
    expired(provider, sdk, good, broken)
    expected = raised(Sdk(Provider(broken), is_async, True).ask)
    assert raised(sdk.ask) == expected
    assert CacheEntry.objects.count() == 1
    assert provider.told[-1] == "closed"


def test_a_function_is_kept_whose_model_answered_the_second_time() -> None:
    provider = Provider(lambda _: FAILURES["429"] if len(provider.asked) == 1 else Said(whole()))
    sdk = Sdk(provider, False, False).wrapped()

    @llmcache.cached(exclude=["sdk"])
    def city() -> str:
        return str(json.dumps(sdk.ask()))

    with llmcache.capture() as calls:
        assert city() == city()
    assert [(call.outcome, call.stored) for call in calls] == [
        *(("miss", False), ("miss", True), ("miss", True), ("hit", False))
    ]
