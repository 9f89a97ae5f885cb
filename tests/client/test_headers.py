"""Headers that choose the answer count in the key; credentials, ids and traces do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import cohere
import httpx
import httpx2
import instructor
import openai
import pytest
from google import genai
from google.genai.types import GenerateContentConfig
from mistralai.client import Mistral
from pydantic import BaseModel

import llmcache
from llmcache.doors.replay import NotRebuildable, ask_again, request_of
from llmcache.exceptions import UncacheableRequest
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn


class City(BaseModel):
    title: str


CALL: dict[str, Any] = {
    "response_model": City,
    "messages": [{"role": "user", "content": "Which city lies on seven hills?"}],
}
URL = "http://one.example/v1"
Headers = dict[str, Any]


def of_openai(headers: Headers) -> Any:
    return instructor.from_openai(openai.OpenAI(api_key="k", base_url=URL, default_headers=headers))


def of_anthropic(headers: Headers) -> Any:
    sdk = anthropic.Anthropic(api_key="k", base_url=URL, default_headers=headers)
    return instructor.from_anthropic(sdk)


def of_gemini(headers: Headers) -> Any:
    options: Any = {"base_url": URL, "headers": headers}
    return instructor.from_genai(genai.Client(api_key="k", http_options=options))


def of_mistral(headers: Headers) -> Any:
    given = httpx2.Client(headers=headers)
    return instructor.from_mistral(Mistral(api_key="k", server_url=URL, client=given))


def of_cohere(headers: Headers) -> Any:
    given = httpx.Client(headers=headers)
    return instructor.from_cohere(cohere.ClientV2(api_key="k", base_url=URL, httpx_client=given))


def of_http_client(headers: Headers) -> Any:
    given = openai.DefaultHttpxClient(headers=headers)
    return instructor.from_openai(openai.OpenAI(api_key="k", base_url=URL, http_client=given))


def of_instructor(headers: Headers) -> Any:
    sdk = openai.OpenAI(api_key="k", base_url=URL)
    given: dict[str, Any] = {"extra_headers": headers} if headers else {}
    return instructor.from_openai(sdk, **given)


MAKERS = [
    of_openai,
    of_anthropic,
    of_gemini,
    of_mistral,
    of_cohere,
    of_http_client,
    of_instructor,
]
Make = Callable[[Headers], Any]


def key(given: Headers | None = None, make: Make = of_openai, **arguments: Any) -> str:
    client = llmcache.wrap(make(given or {}), model="m")
    return llmcache.key_for(client, **(CALL | arguments))


def key_of_call(headers: Headers, on_client: Headers | None = None) -> str:
    return key(on_client, extra_headers=headers)


def words(text: str) -> list[str]:
    return text.split()


# Of a client


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_a_user_gives_a_client_counts(make: Make) -> None:
    keys = [key({"X-Acme-Tier": tier} if tier else {}, make) for tier in ("gold", "iron", "")]
    assert len(set(keys)) == 3
    assert key({"x-acme-TIER": "gold"}, make) == keys[0]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_whose_client_it_is_does_not_count(make: Make) -> None:
    assert key({"Authorization": "Bearer a", "X-Trace-Id": "1"}, make) == key({}, make)


DENIED = words("""
    Authorization Proxy-Authorization X-Api-Key api-key x-goog-api-key X_API_KEY x-portkey-api-key
    Ocp-Apim-Subscription-Key cf-aig-authorization CF-Access-Client-Id CF-Access-Client-Secret
    Helicone-Auth x-amz-security-token X-Auth-Token X-Vault-Token Cookie openai-organization
    OpenAI-Project x-goog-user-project anthropic-organization-id X-Request-ID x-client-request-id
    X-Correlation-ID x-session-id helicone-session-path helicone-user-id helicone-request-id
    helicone-property-app traceparent tracestate baggage b3 x-b3-traceid X-B3-Sampled sentry-trace
    x-amzn-trace-id X-Cloud-Trace-Context x-datadog-parent-id uber-trace-id elastic-apm-traceparent
    newrelic Idempotency-Key x-stainless-lang X-Forwarded-For Via Date Content-Length Content-Type
    Accept Accept-Encoding Connection User-Agent x-goog-api-client HTTP-Referer X-Title
    x-portkey-trace-id x-portkey-span-name x-portkey-metadata cf-aig-metadata cf-aig-collect-log
    x-litellm-call-id x-litellm-timeout x-litellm-num-retries x-litellm-spend-logs-metadata
""")


@pytest.mark.parametrize("name", DENIED)
def test_credentials_ids_traces_and_transport_do_not_count(name: str) -> None:
    assert key({name: "a"}) == key() == key_of_call({name: "a"})


ROUTING = words("""
    OpenAI-Beta anthropic-beta anthropic-version x-portkey-provider x-portkey-config
    x-portkey-virtual-key x-portkey-custom-host x-litellm-tags x-litellm-model-group
    Helicone-Target-Url helicone-target-provider Helicone-Model-Override Helicone-Fallbacks
    Helicone-Token-Limit-Exception-Handler cf-aig-custom-provider azureml-model-deployment
    x-amzn-bedrock-guardrail-identifier X-Vertex-AI-LLM-Request-Type groq-model-version
    x-tfy-provider-name x-ms-api-version Host
""")


@pytest.mark.parametrize("name", ROUTING)
def test_what_routes_or_switches_on_counts_on_the_client_and_in_a_call(name: str) -> None:
    assert len({key(), key({name: "a"}), key({name: "b"})}) == 3
    assert key_of_call({name.upper(): "a"}) == key({name: "a"})


# Of a call


def test_what_nobody_knows_does_not_count_in_a_call() -> None:
    assert key_of_call({"x-acme-turn": "1"}) == key()


def test_what_counts_on_the_client_counts_where_a_call_changes_it() -> None:
    gold = {"x-acme-tier": "gold"}
    assert key_of_call({"X-Acme-Tier": "iron"}, gold) == key({"x-acme-tier": "iron"})
    assert key_of_call({"x-acme-turn": "1"}, gold) == key(gold)


def test_a_header_that_a_call_takes_away_does_not_count() -> None:
    assert key_of_call({"x-acme-tier": openai.Omit()}, {"x-acme-tier": "gold"}) == key()


def test_values_are_compared_exactly() -> None:
    assert key_of_call({"openai-beta": "A"}) != key_of_call({"openai-beta": "a"})


@pytest.mark.parametrize("names", [["X-Acme-Turn", "X-Request-Id"], ("x-acme-turn",)])
def test_the_setting_names_more(settings: Any, names: Any) -> None:
    settings.LLMCACHE = settings.LLMCACHE | {"KEY_HEADERS": names}
    for name in names:
        assert key_of_call({name.title(): "1"}) == key({name: "1"}) != key_of_call({name: "2"})


def test_what_the_client_excludes_does_not_count() -> None:
    client = llmcache.wrap(of_openai({}), model="m", exclude=["extra_headers"])
    assert llmcache.key_for(client, **CALL, extra_headers={"openai-beta": "a"}) == key()


@pytest.mark.parametrize(
    ("make", "argument", "hold"),
    [
        (of_openai, "headers", lambda headers: headers),
        (of_mistral, "http_headers", lambda headers: headers),
        (of_cohere, "request_options", lambda headers: {"additional_headers": headers}),
        (of_gemini, "config", lambda headers: {"http_options": {"headers": headers}}),
        (
            of_gemini,
            "config",
            lambda headers: GenerateContentConfig(http_options={"headers": headers}),
        ),
    ],
    ids=["LiteLLM", "Mistral", "Cohere", "Gemini", "Gemini's own class"],
)
def test_wherever_an_sdk_takes_them(make: Make, argument: str, hold: Any) -> None:
    def of_call(**headers: str) -> str:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return key(None, make, **{argument: hold(names)})

    assert of_call(openai_beta="a") == of_call(openai_beta="a", x_request_id="1")
    assert of_call(openai_beta="a") != of_call(openai_beta="b")
    assert of_call(authorization="a") == of_call(authorization="b")


def test_the_rest_of_what_holds_headers_counts_but_for_transport() -> None:
    def of_call(**options: Any) -> str:
        return key(None, of_cohere, request_options=options)

    assert of_call(max_retries=1) == of_call(timeout_in_seconds=9)
    assert of_call(additional_body_parameters={"p": 1}) != of_call()


def test_a_query_of_a_call_counts_but_for_its_credentials() -> None:
    def of_call(**query: str) -> str:
        return key(extra_query=query)

    assert of_call(version="1", key="a") == of_call(version="1", key="b", api_key="c")
    assert of_call(version="1") != of_call(version="2")


def test_what_litellm_takes_for_credentials_does_not_count() -> None:
    assert key(aws_secret_access_key="s", azure_ad_token_provider=len) == key()


def test_headers_that_are_none_are_a_bypass() -> None:
    with pytest.raises(UncacheableRequest, match="holds no headers"):
        key_of_call(7)  # type: ignore[arg-type]


# What is kept of them

pytestmark = pytest.mark.django_db(transaction=True)


def make_client(model: StandIn, headers: Headers, **arguments: Any) -> Any:
    given = {"Connection": "close"} | headers
    sdk = openai.OpenAI(api_key="k", base_url=model.url, default_headers=given)
    return llmcache.wrap(instructor.from_openai(sdk, **arguments), model="m")


def test_no_value_that_may_be_secret_is_kept(model: StandIn) -> None:
    headers = {"x-portkey-config": "SECRET", "openai-beta": "tools=v2"}
    make_client(model, {"x-acme-tier": "SECRET"}).create(**CALL, extra_headers=headers)
    [row] = durable.entries()
    assert "SECRET" not in row.endpoint
    assert "'openai-beta': 'tools=v2', 'x-acme-tier': '" in row.endpoint


def test_headers_that_are_set_later_count_from_then_on(model: StandIn) -> None:
    client = make_client(model, {})
    client.create(**CALL)
    client.client._custom_headers["x-acme-tier"] = "gold"
    client.create(**CALL)
    client.client._client.headers["x-acme-site"] = "north"
    client.create(**CALL)
    assert len(model.calls) == 3


def test_an_entry_is_asked_again_with_the_headers_of_the_client(model: StandIn) -> None:
    for index, client in enumerate(
        [
            make_client(model, {"x-acme-tier": "gold"}),
            make_client(model, {}, extra_headers={"x-acme-tier": "iron"}),
        ]
    ):
        client.create(**CALL)
        row = durable.entries().latest("created_at")
        assert ask_again(row).stored
        live, again = model.calls[2 * index :]
        assert again.headers["x-acme-tier"] == live.headers["x-acme-tier"]


def test_an_entry_is_not_asked_again_without_the_headers_of_its_call(model: StandIn) -> None:
    client = make_client(model, {})
    client.create(**CALL, extra_headers={"openai-beta": "tools=v2"})
    with pytest.raises(NotRebuildable, match=r"openai-beta.* give them to the client"):
        request_of(durable.entries().get())


def test_a_stale_entry_is_refreshed_with_the_headers_of_its_call(model: StandIn) -> None:
    call = CALL | {"extra_headers": {"openai-beta": "tools=v2", "x-acme-turn": "7"}}
    client = make_client(model, {})
    client.create(**call)
    row = durable.entries().get()
    client.create(**call, cache_mode="reload")
    assert durable.entries().get().key == row.key
    assert model.calls[1].headers["openai-beta"] == "tools=v2"


def test_a_header_changed_while_the_model_is_asked_poisons_nothing(model: StandIn) -> None:
    headers = {"openai-beta": "a"}
    client = make_client(model, {})

    def change(*_: Any, **__: Any) -> None:
        headers["openai-beta"] = "b"

    client.on("completion:kwargs", change)
    client.create(**CALL, extra_headers=headers)
    assert model.calls[0].headers["openai-beta"] == "a"
