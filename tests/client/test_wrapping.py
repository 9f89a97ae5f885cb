"""`from_provider` and `wrap` as a user calls them, against a model over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anthropic
import boto3  # type: ignore[import-untyped]
import instructor
import openai
import pytest
from django.utils import timezone
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import (
    CALL,
    CLOSE,
    MESSAGES,
    make_client,
    make_plain_client,
    make_sdk,
    outcomes,
)
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_model_is_asked_once(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.capture() as calls:
        answers = [create(**CALL) for _ in range(3)]
    assert len(model.calls) == 1
    assert outcomes(calls) == [("miss", None), ("hit", "durable"), ("hit", "durable")]
    assert answers[0] == answers[1] == answers[2]
    assert isinstance(answers[2], Ticket)
    assert [call.stored for call in calls] == [True, False, False]
    assert calls[0].key == calls[1].key
    assert all(call.namespace == "default" and call.seconds > 0 for call in calls)


def test_the_row_tells_what_was_asked_and_answered(model: StandIn, client: Any) -> None:
    before = timezone.now()
    client.create(**CALL, temperature=0, cache_tags=["doc:42"])
    row: Any = durable.entries().get()
    assert row.key == llmcache.key_for(client, **CALL, temperature=0.0)
    assert (row.namespace, row.provider, row.model) == ("default", "openai", "gpt-4.1-mini")
    assert row.response_model == "tests.support.ticket.Ticket"
    assert row.endpoint == f"base_url={model.url}/"
    assert row.mode == "tool_call"
    assert before <= row.created_at <= timezone.now()
    assert timedelta(days=28.5) <= row.expires_at - row.created_at <= timedelta(days=30, seconds=9)
    assert row.input_tokens > 0
    assert row.output_tokens > 0
    assert row.latency > 0
    assert row.size == len(row.payload)
    assert set(row.digests) >= {"messages", "schema", "parameters", "context"}
    assert [tag.tag for tag in row.tags.all()] == ["doc:42"]


@pytest.mark.parametrize(
    "settings_of_the_client",
    [
        {"api_key": "rotated"},
        {"timeout": 3},
        {"max_retries": 7},
        {"default_headers": {"X-Request-ID": "1"}},
        {"organization": "another"},
    ],
    ids=str,
)
def test_credentials_and_transport_of_the_client_do_not_count(
    model: StandIn, client: Any, settings_of_the_client: dict[str, Any]
) -> None:
    client.create(**CALL)
    make_client(model, **settings_of_the_client).create(**CALL)
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 3},
        {"max_retries": 7},
        {"extra_headers": {"X-Request-ID": "1"}},
        {"hooks": instructor.hooks.Hooks()},
        {"user": "somebody"},
        {"safety_identifier": "somebody"},
        {"prompt_cache_key": "tickets"},
        {"prompt_cache_retention": "24h"},
        {"extra_body": {"user": "somebody"}},
        {"extra_body": {"api_key": "a key"}},
    ],
    ids=str,
)
def test_transport_of_the_call_does_not_count(
    model: StandIn, client: Any, arguments: dict[str, Any]
) -> None:
    client.create(**CALL)
    client.create(**CALL, **arguments)
    client.create(**CALL, **arguments, cache_mode="reload")
    assert len(model.calls) == 2
    [row] = durable.entries()
    assert b"a key" not in bytes(row.request or b"")


def test_an_upgraded_http_client_keeps_hitting(
    model: StandIn, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create(**CALL)
    monkeypatch.setattr(openai, "__version__", "99.0")
    monkeypatch.setattr(instructor, "__version__", "99.0")
    http_client = openai.DefaultHttpxClient(headers={"User-Agent": "another/99"})
    make_client(model, http_client=http_client).create(**CALL)
    assert len(model.calls) == 1
    http_client.close()


class Described(BaseModel):
    """A support ticket."""

    title: str = Field(description="Another description")
    priority: int = 3


Described.__name__ = Described.__qualname__ = "Ticket"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "gpt-4.1"},
        {"messages": [*MESSAGES, {"role": "user", "content": "And the paper too."}]},
        {"messages": [MESSAGES[0], {"role": "user", "content": "The printer is on fire!"}]},
        {"messages": [MESSAGES[0], MESSAGES[1] | {"role": "assistant"}]},
        {"messages": list(reversed(MESSAGES))},
        {"response_model": Described},
        {"temperature": 0.5},
        {"seed": 1},
        {"max_tokens": 500},
        {"metadata": {"customer": "7"}},
        {"extra_body": {"a_parameter_of_tomorrow": 1}},
        {"logit_bias": {"50256": -100}},
        {"context": {"customer": "Zoë"}},
        {"strict": False},
        {"cache_namespace": "another"},
    ],
    ids=str,
)
def test_what_can_change_the_answer_counts(
    model: StandIn, client: Any, change: dict[str, Any]
) -> None:
    client.create(**CALL)
    for _ in range(2):
        client.create(**(CALL | change))
    assert len(model.calls) == 2


def test_mode_and_endpoint_count(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    make_client(model, mode=instructor.Mode.JSON).create(**CALL)
    assert len(model.calls) == 2
    with StandIn() as another:
        make_client(another).create(**CALL)
        assert len(another.calls) == 1


def test_the_endpoint_is_read_at_each_call(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    with StandIn() as another:
        client.client.base_url = another.url
        client.create(**CALL)
        assert len(another.calls) == 1


def test_zero_is_zero_for_a_numeric_parameter(model: StandIn, client: Any) -> None:
    client.create(**CALL, temperature=0)
    client.create(**CALL, temperature=0.0)
    assert len(model.calls) == 1


def test_namespaces_do_not_see_each_other(model: StandIn) -> None:
    make_client(model, namespace="a").create(**CALL)
    make_client(model, namespace="b").create(**CALL)
    make_client(model, namespace="a").create(**CALL)
    assert len(model.calls) == 2


# Completions


def test_the_completion_of_a_hit_is_the_sdks_own(model: StandIn, client: Any) -> None:
    live, live_completion = client.create_with_completion(**CALL)
    hit, completion = client.create_with_completion(**CALL)
    assert isinstance(completion, ChatCompletion)
    assert completion.usage
    assert completion == live_completion
    assert type(completion) is ChatCompletion
    assert completion.usage.total_tokens == live_completion.usage.total_tokens
    assert hit == live
    assert len(model.calls) == 1


async def test_the_completion_of_an_asynchronous_hit(model: StandIn) -> None:
    client = make_client(model, async_client=True)
    live, live_completion = await client.create_with_completion(**CALL)
    hit, completion = await client.create_with_completion(**CALL)
    assert isinstance(completion, ChatCompletion)
    assert (hit, completion) == (live, live_completion)
    assert len(model.calls) == 1


def test_the_completion_is_parsed_only_when_somebody_looks(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create(**CALL)
    built: list[type] = []
    construct = ChatCompletion.construct

    def watched(cls: type[ChatCompletion], /, **fields: Any) -> ChatCompletion:
        built.append(cls)
        return construct(**fields)

    monkeypatch.setattr(ChatCompletion, "construct", classmethod(watched))
    _, completion = client.create_with_completion(**CALL)
    assert built == []
    assert completion.id
    assert built == [ChatCompletion]


def test_anthropic(model: StandIn) -> None:
    sdk = anthropic.Anthropic(api_key="k", base_url=model.root, default_headers=CLOSE)
    client = llmcache.wrap(instructor.from_anthropic(sdk), model="claude-3")
    call = CALL | {"max_tokens": 1000}
    live, live_completion = client.create_with_completion(**call)
    hit, completion = client.create_with_completion(**call)
    assert len(model.calls) == 1
    assert isinstance(completion, anthropic.types.Message)
    assert (hit, completion) == (live, live_completion)
    row = durable.entries().get()
    assert row.provider == "anthropic"
    assert row.input_tokens == completion.usage.input_tokens


# Every way to call


def test_all_names_of_create_share_one_entry(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    client.chat.completions.create(**CALL)
    client.messages.create(**CALL)
    client.create_with_completion(**CALL)
    client.chat.completions.create_with_completion(**CALL)
    assert len(model.calls) == 1


def test_wrap_leaves_the_given_client_as_it_is(model: StandIn) -> None:
    plain = make_plain_client(model, model="gpt-4.1-mini")
    wrapped = llmcache.wrap(plain)
    assert type(wrapped) is type(plain)
    for _ in range(2):
        wrapped.create(**CALL)
    assert len(model.calls) == 1
    for _ in range(2):
        plain.create(**CALL)
    assert len(model.calls) == 3


def test_wrap_and_from_provider_share_entries(model: StandIn, client: Any) -> None:
    plain = make_plain_client(model)
    wrapped = llmcache.wrap(plain, model="gpt-4.1-mini")
    client.create(**CALL)
    wrapped.create(**CALL)
    assert len(model.calls) == 1


def test_wrapping_twice_looks_once(model: StandIn, client: Any) -> None:
    twice = llmcache.wrap(client, namespace="other")
    with llmcache.capture() as calls:
        twice.create(**CALL)
    assert [(call.outcome, call.namespace) for call in calls] == [("miss", "other")]


def test_wrap_a_function(model: StandIn) -> None:
    sdk = make_sdk(model)
    client = llmcache.wrap(
        instructor.from_litellm(sdk.chat.completions.create), model="gpt-4.1-mini"
    )
    for _ in range(2):
        assert client.create(**CALL).title
    assert len(model.calls) == 1


def test_the_endpoint_of_a_method_counts(model: StandIn) -> None:
    """The SDK behind a bare method is not an attribute of instructor's client."""

    def make(endpoint: StandIn) -> Any:
        return llmcache.wrap(
            instructor.from_litellm(make_sdk(endpoint).chat.completions.create), model="m"
        )

    make(model).create(**CALL)
    make(model).create(**CALL)
    assert len(model.calls) == 1
    with StandIn() as another:
        make(another).create(**CALL)
        assert len(another.calls) == 1


def plain_function(**kwargs: Any) -> Any:
    raise RuntimeError("never asked")


def test_the_name_of_a_function_is_its_endpoint() -> None:
    client = llmcache.wrap(instructor.from_litellm(plain_function), model="m")
    key = llmcache.key_for(client, **CALL)
    named = llmcache.wrap(client, model="m", endpoint=f"{__name__}.plain_function")
    assert llmcache.key_for(named, **CALL) == key
    other = llmcache.wrap(client, model="m", endpoint="elsewhere")
    assert llmcache.key_for(other, **CALL) != key


def test_a_function_without_a_name_needs_an_endpoint(model: StandIn) -> None:
    sdk = make_sdk(model)
    plain = instructor.from_litellm(lambda **kwargs: sdk.chat.completions.create(**kwargs))
    with llmcache.capture() as calls:
        llmcache.wrap(plain, model="m").create(**CALL)
        llmcache.wrap(plain, model="m", endpoint="here").create(**CALL)
        llmcache.wrap(plain, model="m", endpoint="here").create(**CALL)
    assert [call.outcome for call in calls] == ["bypass", "miss", "hit"]
    assert "endpoint=" in calls[0].reason


@pytest.mark.parametrize("thing", [None, object(), boto3.Session()], ids=str)
def test_wrap_takes_nothing_without_a_client_inside(thing: Any) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="instructor"):
        llmcache.wrap(thing)


@pytest.mark.parametrize("argument", [{"retries": 2}, {"replay": "paced"}], ids=str)
def test_what_is_for_sdks_is_refused_of_a_client_of_instructor(
    model: StandIn, argument: Any
) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="clients of SDKs"):
        llmcache.wrap(make_plain_client(model), **argument)


@pytest.mark.parametrize("argument", [{"model": "m"}, {"endpoint": "here"}], ids=str)
def test_what_is_for_clients_of_instructor_is_refused_of_an_sdk(argument: Any) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="clients of instructor"):
        llmcache.wrap(openai.OpenAI(api_key="k"), **argument)


def test_instructors_own_cache_beside_ours_is_refused(model: StandIn) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="cache"):
        make_client(model, cache=instructor.cache.AutoCache())


def test_hooks_of_the_client_hear_of_calls_to_the_model(model: StandIn, client: Any) -> None:
    heard: list[Any] = []
    client.on("completion:response", heard.append)
    client.create(**CALL)
    client.create(**CALL)
    # A hit is no call to the model: what sums up usage by hooks would count it twice.
    assert len(heard) == 1


@pytest.mark.slow
def test_a_client_made_before_django_is_set_up(model: StandIn) -> None:
    program = f"""
import llmcache
from llmcache import capture, from_provider, invalidate, key_for, override, wrap, DjangoCache
client = llmcache.from_provider("openai/gpt-4.1-mini", api_key="k", base_url={model.url!r})
from django.apps import apps
assert not apps.ready
from django.conf import settings
assert not settings.configured
from pydantic import BaseModel
class Ticket(BaseModel):
    title: str
with llmcache.capture() as calls:
    client.create(response_model=Ticket, messages=[{{"role": "user", "content": "x"}}])
print(calls[0].outcome)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.strip() == "bypass"
    assert len(model.calls) == 1


def test_threads_share_a_client(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    seen: list[Any] = []

    def work() -> None:
        with llmcache.capture() as calls:
            for _ in range(5):
                client.create(**CALL)
        seen.append([call.outcome for call in calls])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["hit"] * 5] * 8
    assert len(model.calls) == 1


async def test_tasks_do_not_see_each_others_calls(model: StandIn) -> None:
    client = make_client(model, async_client=True)

    async def work(number: int) -> list[str]:
        with llmcache.capture() as calls:
            await client.create(**CALL, cache_namespace=f"n{number}")
            await asyncio.sleep(0)
            await client.create(**CALL, cache_namespace=f"n{number}")
        return [call.namespace for call in calls]

    with llmcache.capture() as all_calls:
        seen = await asyncio.gather(*(work(number) for number in range(5)))
    assert seen == [[f"n{number}"] * 2 for number in range(5)]
    assert len(all_calls) == 10
