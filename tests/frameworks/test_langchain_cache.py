"""`LLMCache` for LangChain: its standard suites for caches, unchanged, and what they do not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

import llmcache
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.contrib.langchain import LLMCache
from llmcache.store.rows import tier as durable
from tests.support.dialects import INPUT, Model
from tests.support.frameworks import QUESTION, City

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of LangChain, about what is its own
]


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> LLMCache:
        return LLMCache(namespace="support")


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> LLMCache:
        return LLMCache(namespace="support")


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as model:
        yield model


def openai(model: Model) -> Any:
    cache = LLMCache(namespace="support", tags=["city"])
    return ChatOpenAI(model="m", base_url=f"{model.root}/v1", api_key="k", cache=cache)


def anthropic(model: Model) -> Any:
    cache = LLMCache(namespace="support", tags=["city"])
    return ChatAnthropic(model="m", base_url=model.root, api_key="k", max_tokens=9, cache=cache)


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_question_is_paid_for_once(model: Model, make: Any) -> None:
    live = make(model).invoke(QUESTION)
    with llmcache.capture() as calls:
        stored = [make(model).invoke(QUESTION), asyncio.run(make(model).ainvoke(QUESTION))]
    assert model.asked == 1
    assert [answer.content for answer in stored] == [live.content] * 2
    assert [call.outcome for call in calls] == ["hit"] * 2
    assert [call.model for call in calls] == ["m"] * 2
    row = durable.entries().get()
    assert (row.provider, row.input_tokens) == ("langchain", INPUT)
    request = unseal(REQUEST, row.key, bytes(row.request or b"")).body
    assert b'"messages":[{"role":"human","content":"Which city?"}]' in request
    assert llmcache.invalidate(tags=["city"]).entries == 1


@pytest.mark.parametrize("make", [openai, anthropic])
def test_what_is_cut_is_not_kept(model: Model, make: Any) -> None:
    model.cut = True
    for _ in range(2):
        make(model).invoke(QUESTION)
    assert model.asked == 2


def test_an_object_in_an_answer_would_not_come_back(model: Model) -> None:
    asked = openai(model).with_structured_output(City)
    answers = [asked.invoke(QUESTION) for _ in range(2)]
    assert [type(answer) for answer in answers] == [City, City]
    assert model.asked == 2


def test_what_is_no_json_is_not_stored() -> None:
    cache = LLMCache()
    other = [ChatGeneration(message=AIMessage("text"), generation_info={"at": object()})]
    cache.update("prompt", "llm", other)
    assert cache.lookup("prompt", "llm") is None


def test_clearing_leaves_what_is_of_others(model: Model) -> None:
    cache = LLMCache(namespace="support")
    with llmcache.override(namespace="other"):
        cache.update("prompt", "llm", [Generation(text="text")])
    cache.update("prompt", "llm", [Generation(text="text")])
    cache.clear()
    assert cache.lookup("prompt", "llm") is None
    with llmcache.override(namespace="other"):
        assert cache.lookup("prompt", "llm") == [Generation(text="text")]
