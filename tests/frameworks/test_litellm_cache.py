"""`LLMCache` for LiteLLM: a question is paid for once, and what differs is another question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import litellm
import pytest

import llmcache
from llmcache.contrib.litellm import LLMCache
from llmcache.store.rows import tier as durable
from tests.support.dialects import INPUT, Model
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of LiteLLM, about what is its own
]


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture(autouse=True)
def _cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "cache", LLMCache(namespace="support", tags=["city"]))
    monkeypatch.setattr(litellm, "client_session", None)
    monkeypatch.setattr(litellm, "aclient_session", None)


def asked(model: Model, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Which city?"}]
    told = {"model": "openai/m", "api_base": f"{model.root}/v1", "api_key": "k"}
    return {**told, "messages": messages, **more}


def stored(number: int) -> None:
    """LiteLLM stores behind its callers."""
    wait_until(lambda: durable.entries().count() == number)


def test_a_question_is_paid_for_once(model: Model) -> None:
    live = litellm.completion(**asked(model))
    stored(1)
    again = litellm.completion(**asked(model, api_key="rotated", timeout=9))
    assert model.asked == 1
    assert again.choices == live.choices
    assert again.usage == live.usage
    row = durable.entries().get()
    assert (row.namespace, row.provider, row.input_tokens) == ("support", "litellm", INPUT)
    assert llmcache.invalidate(tags=["city"]).entries == 1


def test_by_coroutines(model: Model) -> None:
    async def ask() -> Any:
        answer = await litellm.acompletion(**asked(model))
        while not await durable.entries().aexists():  # noqa: ASYNC110 - (a task stores it)
            await asyncio.sleep(0.01)
        return answer

    live, again = asyncio.run(ask()), asyncio.run(ask())
    assert again.choices == live.choices
    assert model.asked == 1


@pytest.mark.parametrize(
    "other",
    [{"extra_body": {"a": 1}}, {"temperature": 0.5}, {"extra_headers": {"openai-beta": "x"}}],
    ids=str,
)
def test_another_question_is_asked(model: Model, other: dict[str, Any]) -> None:
    litellm.completion(**asked(model))
    stored(1)
    litellm.completion(**asked(model, **other))
    assert model.asked == 2


def test_another_endpoint_is_another_question(model: Model) -> None:
    litellm.completion(**asked(model))
    stored(1)
    with Model() as other:
        litellm.completion(**asked(other))
        assert other.asked == 1


def test_namespaces_do_not_see_each_other(model: Model) -> None:
    for number, namespace in enumerate(["a", "b", "a"]):
        with llmcache.override(namespace=namespace):
            litellm.completion(**asked(model))
        stored(min(number + 1, 2))
    assert model.asked == 2


def test_what_has_no_canonical_form_has_no_key(model: Model) -> None:
    assert litellm.cache.get_cache_key(**asked(model, extra_body={"a": object()})) is None


def test_who_names_a_key_reaches_no_entry_by_it(model: Model, caplog: Any) -> None:
    litellm.completion(**asked(model))
    stored(1)
    known = str(litellm.cache.get_cache_key(**asked(model)))
    for number, key in enumerate(["mine", known], start=2):
        litellm.completion(**asked(model, cache_key=key))
        assert model.asked == number
    assert durable.entries().count() == 1
    assert "cache_key= of their own are not cached" in caplog.text
