"""`from_provider`, `wrap` and `key_for` as a user calls them, against a model over HTTP."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict
from uuid import UUID, uuid4

import anthropic
import instructor
import openai
import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone
from django.utils.safestring import mark_safe
from instructor.v2.core.multimodal import PDF, Image
from instructor.v2.dsl.response_list import ListResponse
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field, create_model, field_validator

import llmcache
from llmcache import signals
from llmcache.store.rows import columns
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


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


@pytest.fixture(params=["sync", "async"])
def create(request: pytest.FixtureRequest, model: StandIn) -> Any:
    """`client.create` of a synchronous client, and of an asynchronous one run to its end."""
    if request.param == "sync":
        return make_client(model).create
    return async_to_sync(make_client(model, async_client=True).create)


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


@pytest.mark.parametrize("thing", [None, object(), openai.OpenAI(api_key="k")], ids=str)
def test_wrap_takes_clients_of_instructor_only(thing: Any) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="instructor"):
        llmcache.wrap(thing)


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


# Time to live and modes


def ttl_of_the_row() -> float | None:
    row = durable.entries().get()
    return (row.expires_at - row.created_at).total_seconds() if row.expires_at else None


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(3600, 3600), (1.5, 1.5), (timedelta(minutes=2), 120), (None, None)]
)
def test_cache_ttl(create: Callable[..., Any], ttl: Any, seconds: float | None) -> None:
    create(**CALL, cache_ttl=ttl)
    # (of a minute or more, up to a twentieth is left out)
    assert ttl_of_the_row() == (seconds and pytest.approx(seconds, rel=0.06, abs=1))


def test_cache_ttl_0_does_not_store(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.capture() as calls:
        create(**CALL, cache_ttl=0)
        create(**CALL, cache_ttl=0)
    assert len(model.calls) == 2
    assert not durable.entries().exists()
    assert {call.reason for call in calls} == {"cache_ttl is 0"}


@pytest.mark.parametrize("ttl", [-1, True, "60", float("nan"), timedelta(days=-1), [1]], ids=str)
def test_a_ttl_that_cannot_be_meant(model: StandIn, create: Callable[..., Any], ttl: Any) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="cache_ttl"):
        create(**CALL, cache_ttl=ttl)
    assert model.calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"cache_mode": "cached"},
        {"cache_tags": "doc:42"},
        {"cache_tags": [1]},
        {"cache_namespace": ""},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(
    model: StandIn, create: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        create(**CALL, **arguments)
    assert model.calls == []


@pytest.mark.parametrize("arguments", [{"ttl": -1}, {"namespace": ""}, {"tags": "doc:42"}], ids=str)
def test_arguments_of_the_client_are_read_when_it_is_made(
    model: StandIn, arguments: dict[str, Any]
) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        make_client(model, **arguments)


def test_ttl_and_tags_of_the_client(model: StandIn) -> None:
    client = make_client(model, ttl=60, tags=["team:a"])
    client.create(**CALL, cache_tags=["doc:42"])
    assert ttl_of_the_row() == pytest.approx(60, rel=0.06)
    assert set(durable.entries().get().tags.values_list("tag", flat=True)) == {"team:a", "doc:42"}


def test_reload_asks_and_replaces(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.capture() as calls:
        create(**CALL)
        create(**CALL, cache_mode="reload")
        create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "reload", "hit"]
    assert len(model.calls) == 2


def test_no_store_neither_reads_nor_writes(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.capture() as calls:
        create(**CALL, cache_mode="no-store")
        assert not durable.entries().exists()
        create(**CALL)
        create(**CALL, cache_mode="no-store")
    assert [call.outcome for call in calls] == ["bypass", "miss", "bypass"]
    assert "no-store" in calls[0].reason
    assert len(model.calls) == 3


def test_only_if_cached_never_asks(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.capture() as calls, pytest.raises(llmcache.CacheMiss) as error:
        create(**CALL, cache_mode="only-if-cached")
    assert model.calls == []
    assert error.value.key == calls[0].key
    create(**CALL)
    assert create(**CALL, cache_mode="only-if-cached").title
    assert len(model.calls) == 1


def test_only_if_cached_holds_for_what_is_never_cached(model: StandIn, client: Any) -> None:
    with pytest.raises(llmcache.CacheMiss):
        client.create(**CALL, context={"f": print}, cache_mode="only-if-cached")
    assert model.calls == []


def test_force_cache_takes_a_stale_entry(model: StandIn, create: Callable[..., Any]) -> None:
    create(**CALL, cache_ttl=60)
    durable.entries().update(payload=expired_payload())
    with llmcache.capture() as calls:
        create(**CALL, cache_mode="force-cache")
        create(**CALL)
        create(**CALL, cache_mode="force-cache")
    assert outcomes(calls) == [("stale", "durable"), ("miss", None), ("hit", "durable")]
    assert len(model.calls) == 2


def expired_payload() -> bytes:
    from llmcache.codec.envelope import ANSWER, seal, unseal

    row = durable.entries().get()
    envelope = unseal(ANSWER, row.key, bytes(row.payload))
    durable.entries().update(expires_at=columns.moment(envelope.created + 0.001))
    return seal(
        ANSWER,
        row.key,
        envelope.body,
        created=envelope.created,
        expires=envelope.created + 0.001,
    )


def test_override(model: StandIn, create: Callable[..., Any]) -> None:
    with llmcache.override(mode="only-if-cached"), pytest.raises(llmcache.CacheMiss):
        create(**CALL)
    with llmcache.override(namespace="n", ttl=10, tags=["t"]):
        create(**CALL)
    assert durable.entries().get().namespace == "n"
    assert ttl_of_the_row() == pytest.approx(10, abs=1)


# What is not cached


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"context": {"f": print}}, "context['f']"),
        ({"context": {"x": float("nan")}}, "NaN"),
    ],
    ids=str,
)
def test_what_has_no_key_is_a_bypass_with_a_reason(
    model: StandIn, client: Any, arguments: dict[str, Any], reason: str
) -> None:
    with llmcache.capture() as calls:
        for _ in range(2):
            client.create(**(CALL | arguments))
    assert [call.outcome for call in calls] == ["bypass", "bypass"]
    assert reason in calls[0].reason
    assert len(model.calls) == 2
    with pytest.raises(llmcache.UncacheableRequest):
        llmcache.key_for(client, **(CALL | arguments))


def test_the_reason_is_logged_once(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        """No canonical form, and logged for the first time here."""

    with caplog.at_level(logging.WARNING, "llmcache"):
        for _ in range(3):
            client.create(**CALL, context={"odd": Odd()})
    assert [record.getMessage().count("context") for record in caplog.records] == [1]


@pytest.mark.parametrize("value", [uuid4(), timezone.now(), Colour.RED, {1: 100}, b"x"])
def test_what_instructor_cannot_key_is_cached(model: StandIn, client: Any, value: Any) -> None:
    with llmcache.capture() as calls:
        for _ in range(2):
            client.create(**CALL, context={"value": value})
    assert [call.outcome for call in calls] == ["miss", "hit"]


def test_context_does_not_coerce(model: StandIn, client: Any) -> None:
    client.create(**CALL, context={"m": {1: 100}})
    client.create(**CALL, context={"m": {"1": 100}})
    assert len(model.calls) == 2


class Titled(TypedDict):
    title: str


def test_streams_pass_through(model: StandIn, client: Any) -> None:
    with llmcache.capture() as calls:
        partials = client.create_partial(**CALL, cache_mode="no-store")
    assert partials[-1].title
    assert type(partials) is ListResponse
    assert calls[0].outcome == "bypass"


def test_streams_without_a_known_shape_pass_through(model: StandIn, client: Any) -> None:
    model.behaviour.answer_with = {"tasks": [{"title": "Fire"}]}
    with llmcache.capture() as calls:
        items = list(client.create_iterable(**(CALL | {"response_model": Titled})))
    assert [item.title for item in items] == ["Fire"]
    assert calls[0].outcome == "bypass"
    assert "stream" in calls[0].reason


class Stamped(BaseModel):
    """Neither its dump nor the provider's response brings the same object back."""

    title: str
    number: UUID = Field(default_factory=uuid4, exclude=True)


def test_an_answer_that_would_come_back_different_is_not_stored(
    model: StandIn, client: Any
) -> None:
    model.behaviour.answer_with = {"title": "Fire"}
    with llmcache.capture() as calls:
        for _ in range(2):
            client.create(**(CALL | {"response_model": Stamped}))
    assert [call.stored for call in calls] == [False, False]
    assert "different" in calls[0].reason


def test_an_entry_that_does_not_validate_any_more_is_a_miss(model: StandIn, client: Any) -> None:
    allowed = SimpleNamespace(value=True)

    class Moody(BaseModel):
        title: str

        @field_validator("title")
        @classmethod
        def _check(cls, value: str) -> str:
            if not allowed.value:
                raise ValueError("not today")
            return value

    call = CALL | {"response_model": Moody}
    client.create(**call)
    allowed.value = False
    with llmcache.capture() as calls, pytest.raises(Exception, match="not today"):
        client.create(**call)
    # The model was asked, and the error is the one of the live answer.
    assert len(model.calls) > 1
    assert calls[0].outcome == "miss"


def test_the_models_error_is_the_callers(model: StandIn, create: Callable[..., Any]) -> None:
    model.fail_with = 401
    with llmcache.capture() as calls, pytest.raises(Exception, match="401"):
        create(**CALL)
    assert calls[0].outcome == "miss"
    assert "raised" in calls[0].reason
    assert not durable.entries().exists()


# Keys


def test_key_for_asks_nobody(model: StandIn, client: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        key = llmcache.key_for(client, **CALL)
    assert len(bytes.fromhex(key)) == 32
    assert model.calls == []
    with llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].key == key


def test_key_for_needs_a_client_of_llmcache(model: StandIn) -> None:
    plain = make_plain_client(model)
    with pytest.raises(llmcache.InvalidArgument, match="wrap"):
        llmcache.key_for(plain, **CALL)


def test_a_schema_made_anew_is_the_same_schema(model: StandIn, client: Any) -> None:
    def made() -> type[BaseModel]:
        return create_model("Made", title=(str, ...))

    client.create(**(CALL | {"response_model": made()}))
    client.create(**(CALL | {"response_model": made()}))
    assert len(model.calls) == 1


def test_the_plan_of_a_class_goes_with_it() -> None:
    import gc
    import weakref

    from llmcache.client.shapes import shape_of

    made = create_model("Gone", title=(str, ...))
    shape_of(made, instructor.Mode.TOOLS)
    watch = weakref.ref(made)
    del made
    gc.collect()
    assert watch() is None


def test_a_subclass_has_a_plan_of_its_own(model: StandIn, client: Any) -> None:
    class Longer(Ticket):
        note: str = ""

    client.create(**CALL)
    assert isinstance(client.create(**(CALL | {"response_model": Longer})), Longer)
    assert len(model.calls) == 2


# Signals, settings


def test_each_call_is_signalled(client: Any) -> None:
    heard: list[Any] = []

    def listen(sender: object, call: Any, **kwargs: Any) -> None:
        heard.append((call.outcome, call.key))

    def fail(sender: object, **kwargs: Any) -> None:
        raise RuntimeError("a receiver of the project fails")

    signals.call_answered.connect(fail)
    signals.call_answered.connect(listen)
    try:
        client.create(**CALL)
        client.create(**CALL)
    finally:
        signals.call_answered.disconnect(listen)
        signals.call_answered.disconnect(fail)
    assert [outcome for outcome, _ in heard] == ["miss", "hit"]


@pytest.mark.parametrize(
    "entry",
    [
        {"TTL": "soon"},
        {"NAMESPACE": ""},
        {"MAX_ENTRY_BYTES": -1},
        {"STALE_WHILE_REVALIDATE": "5 minutes"},
        {"STALE_IF_ERROR": "5 minutes"},
    ],
)
def test_a_wrong_setting_never_reaches_the_caller(
    model: StandIn, create: Callable[..., Any], settings: Any, entry: dict[str, Any]
) -> None:
    settings.LLMCACHE = {"CACHE": None, **entry}
    with llmcache.capture() as calls:
        assert create(**CALL).title
    assert calls[0].reason
    assert not calls[0].stored


def test_who_cannot_be_told_how_long_to_wait_asks_at_once(
    model: StandIn, create: Callable[..., Any], settings: Any
) -> None:
    settings.LLMCACHE = {"CACHE": None, "WAIT_SECONDS": "two minutes"}
    with llmcache.capture() as calls:
        assert create(**CALL).title
        assert create(**CALL).title
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]
    assert "LLMCACHE['WAIT_SECONDS'] must be" in calls[0].reason


def shout(request: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "REDACTED"}]}


@pytest.mark.parametrize(
    ("setting", "stored"),
    [("full", b"printer"), ("digest", None), (f"{__name__}.shout", b"REDACTED")],
)
def test_store_requests(client: Any, settings: Any, setting: str, stored: bytes | None) -> None:
    from llmcache.codec.envelope import REQUEST, unseal

    settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": setting}
    client.create(**CALL)
    row: Any = durable.entries().get()
    if stored is None:
        assert row.request is None
    else:
        assert stored in unseal(REQUEST, row.key, bytes(row.request)).body


def test_nothing_is_legible_at_rest_when_keys_are_configured(client: Any, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["A" * 43 + "="]}
    with llmcache.capture() as calls:
        client.create(**CALL)
        client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    row: Any = durable.entries().get()
    assert b"printer" not in bytes(row.payload) + bytes(row.request)


def test_a_mark_for_not_given_is_not_sent_and_does_not_count(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    client.create(**CALL, temperature=openai.NOT_GIVEN)
    assert len(model.calls) == 1


def test_an_identifier_in_context_is_part_of_the_key(client: Any) -> None:
    keys = {
        llmcache.key_for(client, **CALL, context={"id": UUID(int=number)}) for number in range(3)
    }
    assert len(keys) == 3


# Wrong answers that were once served


class ModelName(str, Enum):  # noqa: UP042 - that is what they write
    """As projects name their models."""

    DEFAULT = "gpt-4o"


class NewModelName(str, Enum):  # noqa: UP042
    DEFAULT = "gpt-5"


def test_the_value_of_an_enum_is_the_model(model: StandIn, client: Any) -> None:
    client.create(**CALL, model=ModelName.DEFAULT)
    client.create(**CALL, model="gpt-4o")
    assert len(model.calls) == 1
    client.create(**CALL, model=NewModelName.DEFAULT)
    assert len(model.calls) == 2
    assert llmcache.invalidate(model="gpt-4o").entries == 1


def test_the_order_of_fields_counts(model: StandIn, client: Any) -> None:
    """A model fills them in one by one: to reason first gives another answer."""
    first = create_model("R", reasoning=(str, ""), title=(str, "x"))
    second = create_model("R", title=(str, "x"), reasoning=(str, ""))
    assert key_of(client, response_model=first) != key_of(client, response_model=second)


def key_of(client: Any, **changes: Any) -> str:
    return llmcache.key_for(client, **(CALL | changes))


def test_the_order_inside_the_context_counts(client: Any) -> None:
    """A template may write a mapping out."""
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert key_of(client, context={"d": one}) != key_of(client, context={"d": other})
    assert key_of(client, context={"d": [one]}) != key_of(client, context={"d": [other]})
    assert key_of(client, context=one) == key_of(client, context=other)


@dataclass
class Document:
    id: int

    def __post_init__(self) -> None:
        self.body = BODIES[self.id]


BODIES = {1: "old"}


class Marked(str):
    """A text with something hung on it."""


def test_what_hangs_on_an_object_counts(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(client, context={"d": Document(1)})
    monkeypatch.setitem(BODIES, 1, "new")
    assert key_of(client, context={"d": Document(1)}) != before

    one, other = Marked("x"), Marked("x")
    vars(one)["title"], vars(other)["title"] = "A", "B"
    assert key_of(client, context={"d": one}) != key_of(client, context={"d": other})
    assert key_of(client, context={"d": mark_safe("<b>")}) != key_of(client, context={"d": "<b>"})


def test_where_media_are_from_counts_where_it_is_sent(client: Any, tmp_path: Path) -> None:
    def key(media: Any) -> str:
        return key_of(client, messages=[{"role": "user", "content": ["Look", media]}])

    for name in ("1.pdf", "2.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4 x")
    first, second = (PDF.from_path(str(tmp_path / name)) for name in ("1.pdf", "2.pdf"))
    assert key(first) != key(second)

    images = [Image(source=f"http://a/{n}.png", media_type="image/png", data="QUJD") for n in "12"]
    assert key(images[0]) != key(images[1])

    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n same")
    same = {key(Image.from_path(tmp_path / name)) for name in ("1.png", "2.png")}
    assert len(same) == 1


def cut_to(length: int) -> type[BaseModel]:
    class Note(BaseModel):
        title: str

        @field_validator("title")
        @classmethod
        def _cut(cls, value: str) -> str:
            return value[:length]

    return Note


def test_a_changed_validator_sees_what_it_would_have_seen(model: StandIn, client: Any) -> None:
    model.behaviour.answer_with = {"title": "a long title"}
    short = client.create(**(CALL | {"response_model": cut_to(2)}))
    longer = client.create(**(CALL | {"response_model": cut_to(6)}))
    assert (short.title, longer.title) == ("a ", "a long")
    assert len(model.calls) == 1


def test_a_default_that_a_function_made_is_kept(model: StandIn, client: Any) -> None:
    today = SimpleNamespace(value="monday")

    class Inner(BaseModel):
        seen: str = Field(default_factory=lambda: today.value)

    class Outer(BaseModel):
        title: str
        day: str = Field(default_factory=lambda: today.value)
        inner: list[Inner]

    model.behaviour.answer_with = {"title": "x", "inner": [{}, {"seen": "never"}]}
    call = CALL | {"response_model": Outer}
    live = client.create(**call)
    today.value = "tuesday"
    hit = client.create(**call)
    assert len(model.calls) == 1
    assert hit == live
    assert hit.day == hit.inner[0].seen == "monday"
    assert hit.model_fields_set == live.model_fields_set == {"title", "inner"}
    assert [i.model_fields_set for i in hit.inner] == [set(), {"seen"}]


def test_nothing_in_the_key_raises_into_the_call(model: StandIn, client: Any) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise IndexError

    class Nasty:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise Mute

    with llmcache.capture() as calls:
        assert client.create(**CALL, context={"x": Nasty()}).title
    assert calls[0].outcome == "bypass"


def test_no_credential_of_the_endpoint_is_kept(model: StandIn) -> None:
    url = model.url.replace("//", "//user:SECRET@")
    sdk = openai.OpenAI(
        api_key="k", base_url=url, default_headers=CLOSE, default_query={"key": "SECRET"}
    )
    llmcache.wrap(instructor.from_openai(sdk), model="m").create(**CALL)
    assert "SECRET" not in durable.entries().get().endpoint


def test_none_for_tags_and_namespace_is_not_given(client: Any) -> None:
    same_key = llmcache.key_for(client, **CALL, cache_tags=None, cache_namespace=None)
    assert same_key == llmcache.key_for(client, **CALL)
