"""What a call of a client asks of the cache: time to live, modes; what is not cached."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any, TypedDict
from uuid import UUID, uuid4

import pytest
from django.utils import timezone
from instructor.v2.dsl.response_list import ListResponse
from pydantic import BaseModel, Field, field_validator

import llmcache
from llmcache.store.rows import columns
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import (
    CALL,
    make_client,
    outcomes,
)

pytestmark = pytest.mark.django_db(transaction=True)

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
