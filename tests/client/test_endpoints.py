"""Where a client sends its requests counts in the key, whichever SDK it is of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import anthropic
import boto3  # type: ignore[import-untyped]
import cohere
import instructor
import openai
import pytest
from google import genai
from mistralai.client import Mistral
from pydantic import BaseModel

import llmcache
from llmcache.client.call.endpoints import Endpoint
from llmcache.exceptions import UncacheableRequest


class City(BaseModel):
    name: str


CALL: dict[str, Any] = {
    "response_model": City,
    "messages": [{"role": "user", "content": "Which city lies on seven hills?"}],
}
HERE, THERE = "http://one.example/v1", "http://two.example/v1"


def key(client: Any, **arguments: Any) -> str:
    return llmcache.key_for(llmcache.wrap(client, model="m"), **CALL, **arguments)


def of_openai(**options: Any) -> Any:
    return instructor.from_openai(openai.OpenAI(**{"api_key": "k", "base_url": HERE} | options))


def of_azure(**options: Any) -> Any:
    given = {"api_key": "k", "azure_endpoint": HERE, "api_version": "2024-10-21"} | options
    return instructor.from_openai(openai.AzureOpenAI(**given))


def of_anthropic(**options: Any) -> Any:
    sdk = anthropic.Anthropic(**{"api_key": "k", "base_url": HERE} | options)
    return instructor.from_anthropic(sdk)


def of_anthropic_on_aws(**options: Any) -> Any:
    given = {"aws_access_key": "k", "aws_secret_key": "s", "aws_region": "eu-north-1"} | options
    return instructor.from_anthropic(anthropic.AnthropicBedrock(**given))


def of_anthropic_on_vertex(**options: Any) -> Any:
    given = {"access_token": "t", "region": "europe-west1", "project_id": "p"} | options
    return instructor.from_anthropic(anthropic.AnthropicVertex(**given))


def of_gemini(**options: Any) -> Any:
    given: Any = {"base_url": HERE} | options
    return instructor.from_genai(genai.Client(api_key="k", http_options=given))


def of_vertex(**options: Any) -> Any:
    credentials: Any = SimpleNamespace(token="t")
    given = {"credentials": credentials, "project": "p", "location": "europe-west1"} | options
    return instructor.from_genai(genai.Client(vertexai=True, **given))


def of_mistral(**options: Any) -> Any:
    return instructor.from_mistral(Mistral(**{"api_key": "k", "server_url": HERE} | options))


def of_cohere(**options: Any) -> Any:
    return instructor.from_cohere(cohere.ClientV2(**{"api_key": "k", "base_url": HERE} | options))


def of_bedrock(**options: Any) -> Any:
    secrets = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    given = {"region_name": "eu-north-1"} | secrets | options
    return instructor.from_bedrock(boto3.client("bedrock-runtime", **given))


Make = Callable[..., Any]
COUNTS: list[tuple[Make, dict[str, Any]]] = [
    (of_openai, {"base_url": THERE}),
    (of_openai, {"base_url": f"{HERE}?version=2"}),
    (of_openai, {"default_query": {"version": "2"}}),
    (of_openai, {"http_client": openai.DefaultHttpxClient(params={"version": "2"})}),
    (of_azure, {"azure_endpoint": THERE}),
    (of_azure, {"azure_deployment": "mini"}),
    (of_azure, {"api_version": "2025-01-01"}),
    (of_anthropic, {"base_url": THERE}),
    (of_anthropic_on_aws, {"aws_region": "us-east-1"}),
    (of_anthropic_on_vertex, {"region": "us-east5"}),
    (of_anthropic_on_vertex, {"project_id": "another"}),
    (of_gemini, {"base_url": THERE}),
    (of_gemini, {"api_version": "v1alpha"}),
    (of_gemini, {"extra_body": {"safety": "none"}}),
    (of_vertex, {"project": "another"}),
    (of_vertex, {"location": "us-east5"}),
    (of_mistral, {"server_url": THERE}),
    (of_mistral, {"server_url": None, "server": "eu"}),
    (of_mistral, {"server_url": None, "server": "us"}),
    (of_cohere, {"base_url": THERE}),
    (of_bedrock, {"region_name": "us-east-1"}),
    (of_bedrock, {"endpoint_url": THERE}),
]
CREDENTIALS: list[tuple[Make, dict[str, Any]]] = [
    (of_openai, {"api_key": "rotated"}),
    (of_openai, {"organization": "another", "project": "another"}),
    (of_openai, {"base_url": HERE.replace("//", "//user:secret@")}),
    (of_openai, {"base_url": HERE.replace("//", "//user:p@ss@")}),
    (of_openai, {"default_query": {"api_key": "rotated"}}),
    (of_azure, {"api_key": "rotated"}),
    (of_anthropic, {"api_key": "rotated"}),
    (of_anthropic_on_aws, {"aws_access_key": "rotated", "aws_secret_key": "s"}),
    (of_anthropic_on_vertex, {"access_token": "rotated"}),
    (of_gemini, {"headers": {"x-goog-api-key": "rotated"}}),
    (of_mistral, {"api_key": "rotated"}),
    (of_cohere, {"api_key": "rotated", "client_name": "another"}),
    (of_bedrock, {"aws_access_key_id": "rotated"}),
]


def in_short(value: Any) -> str:
    return value.__name__ if callable(value) else ", ".join(value)


@pytest.mark.parametrize(("make", "options"), COUNTS, ids=in_short)
def test_another_endpoint_has_another_key(make: Make, options: dict[str, Any]) -> None:
    assert key(make()) == key(make()) != key(make(**options))


def test_the_values_of_a_query_count_and_are_not_shown() -> None:
    urls = [f"{HERE}?place={place}" for place in ("a-place", "another", "%fe", "%ff")]
    assert len({key(of_openai(base_url=url)) for url in urls}) == len(urls)
    rotated = [f"{HERE}?key={each}" for each in ("one", "another")]
    assert len({key(of_openai(base_url=url)) for url in rotated}) == 1
    named: Any = llmcache.wrap(of_openai(), endpoint=urls[0])
    shown: Any = llmcache.wrap(of_openai(base_url=urls[0]))
    for client in (named, shown):
        assert "a-place" not in client.create_fn.origin.where.text()


@pytest.mark.parametrize(("make", "options"), CREDENTIALS, ids=in_short)
def test_another_credential_has_the_same_key(make: Make, options: dict[str, Any]) -> None:
    assert key(make(**options)) == key(make())


def test_the_servers_of_mistral_have_keys_of_their_own() -> None:
    names = (None, "eu", "us")
    assert len({key(of_mistral(server_url=None, server=name)) for name in names}) == 3


def test_the_server_of_mistral_that_the_sdk_fills_in_changes_no_key() -> None:
    client = of_mistral(server_url=None)
    before = key(client)
    client.client.sdk_configuration.get_server_details()
    assert key(client) == before == key(of_mistral(server_url="https://api.mistral.ai"))


def test_every_provider_of_instructor_is_seen_without_being_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("CO_API_KEY", "k")
    names = ["anthropic", "anyscale", "bedrock", "cohere", "deepseek", "google", "mistral"]
    names += ["ollama", "openrouter", "perplexity", "together"]
    clients = [llmcache.from_provider(f"{name}/m", api_key="k") for name in names]
    assert len({llmcache.key_for(client, **CALL) for client in clients}) == len(names)


def test_an_endpoint_that_is_set_later_counts_from_then_on() -> None:
    for make, path in [
        (of_gemini, "_api_client._http_options.base_url"),
        (of_cohere, "_client_wrapper._base_url"),
        (of_mistral, "sdk_configuration.server_url"),
    ]:
        plain = make()
        client = llmcache.wrap(plain, model="m")
        before = llmcache.key_for(client, **CALL)
        holder, _, name = path.rpartition(".")
        target = plain.client
        for step in holder.split("."):
            target = getattr(target, step)
        setattr(target, name, THERE)
        assert llmcache.key_for(client, **CALL) not in {before, ""}, path


# What is not known


class Silent:
    """A client of an SDK that says nothing of where it sends requests."""

    base_url: str | None = ""
    vertexai = False
    project = None


@pytest.mark.parametrize("url", ["", None])
def test_what_is_merely_there_does_not_tell_the_endpoint(url: str | None) -> None:
    client = Silent()
    client.base_url = url
    with pytest.raises(UncacheableRequest, match=r"a Silent sends .*wrap\(client, endpoint="):
        Endpoint(None, client, len)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("google.generativeai.generative_models", "keeps the endpoint, the model"),
        ("vertexai.generative_models", "keeps the endpoint, the model"),
        ("xai_sdk.sync.client", "does not show what it sends along"),
        ("litellm.router", "chooses among endpoints"),
    ],
)
def test_a_client_that_shows_too_little_is_not_cached(module: str, why: str) -> None:
    client = type("Client", (), {"__module__": module, "base_url": HERE})()
    with pytest.raises(UncacheableRequest, match=why):
        Endpoint(None, client, len)
    assert Endpoint("in words", client, len).text() == "in words"


def test_a_project_that_only_the_first_request_finds_out_is_waited_for() -> None:
    client = of_anthropic_on_vertex(project_id=anthropic.NOT_GIVEN)
    with pytest.raises(UncacheableRequest, match="AnthropicVertex"):
        key(client)
    client.client.project_id = "p"
    assert key(client) == key(of_anthropic_on_vertex())


@pytest.mark.parametrize("told", ["", None, False])
def test_what_is_merely_falsy_tells_no_endpoint(told: Any) -> None:
    one, other = (
        llmcache.wrap(of_openai(base_url=url), model="m", endpoint=told) for url in (HERE, THERE)
    )
    assert llmcache.key_for(one, **CALL) != llmcache.key_for(other, **CALL)


def test_a_class_of_the_users_own_is_known_by_the_one_that_it_extends() -> None:
    class Ours(openai.OpenAI):
        pass

    assert key(instructor.from_openai(Ours(api_key="k", base_url=HERE))) == key(of_openai())


# LiteLLM: functions, which ask where the module and the environment say


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    def completion(**kwargs: Any) -> Any: ...

    completion.__module__, completion.__qualname__ = "litellm.main", "completion"
    module: Any = ModuleType("litellm")
    vars(module).update(provider_list=["openai", "vertex_ai"], api_base=None, headers=None)
    module.completion = completion
    monkeypatch.setitem(sys.modules, "litellm", module)
    return module


def of_litellm(litellm: Any) -> str:
    return key(instructor.from_litellm(litellm.completion))


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "VERTEXAI_API_BASE", "AWS_REGION_NAME"])
def test_litellm_is_told_where_to_ask_by_its_environment(
    litellm: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    before = of_litellm(litellm)
    monkeypatch.setenv(name, THERE)
    assert of_litellm(litellm) != before


def test_what_the_environment_says_of_others_is_nothing_to_litellm(
    litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of_litellm(litellm)
    monkeypatch.setenv("SHOP_BASE_URL", THERE)
    monkeypatch.setenv("OPENAI_API_KEY", "rotated")
    assert of_litellm(litellm) == before


@pytest.mark.parametrize(
    ("name", "value"), [("api_base", THERE), ("headers", {"x-acme-tier": "gold"})]
)
def test_litellm_is_told_where_to_ask_by_its_module(litellm: Any, name: str, value: Any) -> None:
    before = of_litellm(litellm)
    setattr(litellm, name, value)
    assert of_litellm(litellm) != before
