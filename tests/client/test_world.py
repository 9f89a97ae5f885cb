"""Calls that go on with a state of the provider, or let the model look at the world."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import instructor
import openai
import pytest
from google.genai import types as genai
from instructor import Mode

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

SEARCH: dict[str, Any] = {"web_search_options": {}}
FUNCTION = {"type": "function", "function": {"name": "web_search", "parameters": {}}}
CONFIG = genai.GenerateContentConfig(tools=[genai.Tool(google_search=genai.GoogleSearch())])
DECLARED = genai.Tool(function_declarations=[genai.FunctionDeclaration(name="web_search")])

LOOKING: list[dict[str, Any]] = [
    *(
        {"tools": [FUNCTION, {"type": kind}]}
        for kind in (
            *("web_search", "web_search_preview_2025_03_11", "file_search", "computer_use_preview"),
            *("code_interpreter", "mcp", "web_search_20250305", "web_fetch_20250910", "x_search"),
            *("code_execution_20250522", "computer_20250124", "bash_20250124", "mcp_toolset"),
            *("browser_search", "document_library", "a_tool_of_tomorrow"),
        )
    ),
    {"web_search_options": {"search_context_size": "low"}},
    {"mcp_servers": [{"type": "url", "url": "https://host/mcp"}]},
    {"tools": ({"google_search": {}},)},
    {"tools": [{"googleSearch": {}}]},
    {"tools": genai.Tool(url_context=genai.UrlContext())},
    {"config": CONFIG},
    {"config": {"tools": [{"code_execution": {}}]}},
    {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
    {"search_parameters": {"mode": "auto"}},
    {"connectors": [{"id": "web-search"}]},
    {"extra_body": {"plugins": [{"id": "web"}]}},
    {"extra_body": {"plugins": [{"id": "file-parser"}, {"id": "web"}]}},
    {"extra_body": {"data_sources": [{"type": "azure_search"}]}},
    {"extra_body": {"enable_search": True}},
    {"extra_body": {"tools": [{"type": "web_search"}]}},
    {"extra_body": {"model": "openai/gpt-4.1:online"}},
    {"extra_body": {"models": ["openai/gpt-4.1-mini", "perplexity/sonar"]}},
    *(
        {"model": name}
        for name in (
            *("sonar", "sonar-pro", "perplexity/sonar-reasoning", "openai/gpt-4.1:online"),
            *("gpt-4o-mini-search-preview", "gpt-5-search-api", "o4-mini-deep-research"),
            *("groq/compound", "compound-beta-mini", "llama-3.1-sonar-small-128k-online"),
            "Perplexity/Sonar-Pro",
        )
    ),
]

LOOKING_AT_NOTHING: list[dict[str, Any]] = [
    {"tools": [FUNCTION]},
    {"tools": [{"type": "custom", "name": "web_search"}, {"type": "image_generation"}]},
    {"tools": [{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}]},
    {"tools": [{"name": "web_search", "description": "Mine", "input_schema": {}}]},
    {"tools": []},
    {"tools": openai.NOT_GIVEN},
    {"config": genai.GenerateContentConfig(tools=[DECLARED], temperature=0)},
    {"config": {"temperature": 0}},
    {"toolConfig": {"tools": [{"toolSpec": {"name": "web_search"}}]}},
    {"web_search_options": None},
    {"mcp_servers": []},
    {"search_parameters": {"mode": "off"}},
    {"extra_body": {"plugins": [{"id": "file-parser"}], "enable_search": False}},
    {"extra_body": {"search_context": "my own", "models": ["openai/gpt-4.1-mini"]}},
    {"model": "research-1-offline"},
    {"model": "sonnet-compounded"},
]


def outcomes(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


class TestTheWorld:
    @pytest.mark.parametrize("arguments", LOOKING, ids=str)
    def test_what_looks_at_it_is_stored_only_with_a_ttl_of_its_own(
        self, model: StandIn, arguments: dict[str, Any]
    ) -> None:
        client = make_client(model)
        explained = llmcache.explain(client, **CALL | arguments)
        assert explained.outcome == "bypass"
        assert "looks at the world: say for how long" in explained.reason
        assert llmcache.explain(client, **CALL | arguments, cache_ttl=60).outcome == "miss"

    @pytest.mark.parametrize("arguments", LOOKING_AT_NOTHING, ids=str)
    def test_what_does_not_is_stored(self, model: StandIn, arguments: dict[str, Any]) -> None:
        explained = llmcache.explain(make_client(model), **CALL | arguments)
        assert explained.outcome == "miss", explained.reason

    def test_the_reason_names_what_looks(self, model: StandIn) -> None:
        tools = [FUNCTION, {"type": "web_search"}]
        explained = llmcache.explain(make_client(model), **CALL, tools=tools)
        assert explained.reason.startswith("web_search looks at the world")
        explained = llmcache.explain(make_client(model, "openai/sonar"), **CALL)
        assert explained.reason.startswith("the model looks at the world")

    @pytest.mark.parametrize("is_async", [False, True])
    def test_each_call_asks_and_none_is_stored(self, model: StandIn, is_async: bool) -> None:
        with llmcache.capture() as calls:
            for _ in range(2):
                ask(model, is_async, **SEARCH)
        assert outcomes(calls) == ["bypass", "bypass"]
        assert len(model.calls) == 2
        assert not durable.entries().exists()

    @pytest.mark.parametrize("ttl", [60, None])
    def test_a_ttl_is_named_by_the_call_the_client_or_an_override(
        self, model: StandIn, ttl: float | None
    ) -> None:
        client, own = make_client(model), make_client(model, ttl=ttl)
        with llmcache.capture() as calls:
            client.create(**CALL, **SEARCH, cache_ttl=ttl)
            own.create(**CALL, **SEARCH)
            with llmcache.override(ttl=ttl):
                client.create(**CALL, **SEARCH)
            client.create(**CALL, **SEARCH)
        assert outcomes(calls) == ["miss", "hit", "hit", "bypass"]

    def test_the_setting_does_not_do(self, model: StandIn, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "TTL": 60}
        with llmcache.capture() as calls:
            make_client(model).create(**CALL, **SEARCH)
        assert outcomes(calls) == ["bypass"]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_such_calls_neither_wait_nor_hold_others(self, model: StandIn, is_async: bool) -> None:
        requests = [CALL | SEARCH] * 3
        if is_async:
            aclient = make_client(model, async_client=True)
            results = asyncio.run(llmcache.acreate_many(aclient, requests))
        else:
            results = llmcache.create_many(make_client(model), requests)
        assert outcomes([result.call for result in results]) == ["bypass"] * 3
        assert len(model.calls) == 3

    def test_streams_are_passed_on(self, model: StandIn) -> None:
        client = make_client(model)
        with llmcache.capture() as calls:
            for _ in range(2):
                assert list(client.create_iterable(**CALL, **SEARCH))
                assert list(client.create(**CALL | STREAM, **SEARCH))
        assert set(outcomes(calls)) == {"bypass"}

    def test_only_if_cached_asks_nobody(self, model: StandIn) -> None:
        with pytest.raises(llmcache.CacheMiss, match="looks at the world"):
            make_client(model).create(**CALL, **SEARCH, cache_mode="only-if-cached")
        assert not model.calls

    def test_a_client_default_counts_as_well(self, model: StandIn) -> None:
        plain = instructor.from_openai(
            openai.OpenAI(api_key="k", base_url=model.url, default_headers=CLOSE), **SEARCH
        )
        explained = llmcache.explain(llmcache.wrap(plain, model="gpt-4.1-mini"), **CALL)
        assert explained.outcome == "bypass"


STREAM = {"response_model": Iterable[Ticket], "stream": True}


def ask(model: StandIn, is_async: bool, mode: Mode = Mode.TOOLS, **arguments: Any) -> Any:
    client = make_client(model, async_client=is_async, mode=mode)
    answer = client.create(**CALL, **arguments)
    return asyncio.run(answer) if is_async else answer


class TestState:
    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize(
        "arguments",
        [
            {"conversation": "conv_1"},
            {"conversation": {"id": "conv_1"}},
            {"extra_body": {"conversation": "conv_1"}},
            {"background": True, "cache_ttl": 60},
            {"extra_body": {"background": True}, "cache_ttl": 60},
        ],
        ids=str,
    )
    def test_what_goes_on_with_one_asks_each_time(
        self, model: StandIn, is_async: bool, arguments: dict[str, Any]
    ) -> None:
        with llmcache.capture() as calls:
            for _ in range(2):
                ask(model, is_async, Mode.RESPONSES_TOOLS, **arguments)
        assert outcomes(calls) == ["bypass", "bypass"]
        name = next(iter(arguments.get("extra_body", arguments)))
        assert all(call.reason.startswith(f"{name}: the provider") for call in calls)
        assert len(model.calls) == 2

    @pytest.mark.parametrize(
        "arguments",
        [
            {"previous_response_id": "resp_1"},
            {"store": False},
            {"background": False},
            {"conversation": None},
            {"conversation": openai.omit},
        ],
        ids=str,
    )
    def test_what_does_not_is_stored(self, model: StandIn, arguments: dict[str, Any]) -> None:
        with llmcache.capture() as calls:
            for _ in range(2):
                ask(model, False, Mode.RESPONSES_TOOLS, **arguments)
        assert outcomes(calls) == ["miss", "hit"]

    def test_key_for_says_why_there_is_no_key(self, model: StandIn) -> None:
        with pytest.raises(llmcache.UncacheableRequest, match="conversation: the provider keeps"):
            llmcache.key_for(make_client(model), **CALL, conversation="conv_1")
