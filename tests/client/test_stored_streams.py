"""What is stored of streams, under which keys, and what cannot be kept of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import instructor
import pytest
from instructor import Mode
from pydantic import BaseModel, Field, ValidationInfo, field_validator

import llmcache
from llmcache import store
from llmcache.client.streams import Watch
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.equality import same
from llmcache.providers.admission import ends_in, why_chunk_not_admitted
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import MESSAGES
from tests.support.shapes import Cat, Dog, _nested
from tests.support.streams import (
    FIRE,
    FLOOD,
    TICKETS,
    WAYS,
    Asking,
    answer_with_tickets,
    make_asking,
    said,
)
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# What cannot be kept


def change_streams(asking: Asking, change: Callable[[Any], Any]) -> Asking:
    """The same client on an SDK whose streams are changed."""
    sdk = asking.client.client
    create = sdk.chat.completions.create
    sdk.chat.completions.create = lambda **kwargs: change(create(**kwargs))
    client = instructor.from_openai(sdk, mode=Mode.TOOLS)
    return Asking(llmcache.wrap(client, model="gpt-4.1-mini"), {}, is_async=False)


def without_its_end(stream: Any) -> Any:
    return (chunk for chunk in stream if not any(ends_in(chunk).values()))


def of_two_choices(*words: str | None) -> Callable[[Any], Any]:
    """A stream of two choices, of which the other one, the last to end, ends with `words`."""

    def change(stream: Any) -> Any:
        for chunk in stream:
            yield chunk
            choice = chunk.choices[0].model_copy(deep=True, update={"index": 1})
            choice.delta.tool_calls = None
            if choice.finish_reason is None:
                yield chunk.model_copy(update={"choices": [choice]})
        for word in words:
            ended = choice.model_copy(update={"finish_reason": word})
            yield chunk.model_copy(update={"choices": [ended]})

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (iter, ""),
        (without_its_end, "did not say that the answer is complete"),
        (of_two_choices("stop"), ""),
        (of_two_choices("stop", None), ""),
        (of_two_choices(None), "did not say that the answer is complete"),
        (of_two_choices("length"), "cut short"),
    ],
    ids=["whole", "no end", "two", "more after the end", "one of two", "one is cut"],
)
def test_a_stream_that_may_have_been_cut_short(
    model: StandIn, change: Callable[[Any], Any], reason: str
) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE]}
    asking = change_streams(make_asking(model, "openai", Mode.TOOLS, is_async=False), change)
    with llmcache.capture() as calls:
        assert asking.iterable() == TICKETS[:1]
    assert said(calls) == [("miss", not reason)]
    assert reason in calls[0].reason


def test_a_chunk_that_cannot_be_read_does_no_harm() -> None:
    watch = Watch()
    assert len(list(watch.over([SimpleNamespace(type=[])], is_async=False))) == 1
    assert "TypeError" in str(watch.said.why_not_admitted())


@WAYS
def test_what_is_sent_is_what_would_be_sent_without_the_cache(
    model: StandIn, asking: Asking, way: str
) -> None:
    answer_with_tickets(model, way)
    client = asking.client.create_fn.origin.client
    plain = Asking(client, {"model": "m", **asking.limits}, asking.is_async)
    getattr(plain, way)(Described)
    getattr(asking, way)(Described, model="m")
    one, other = (call.body for call in model.calls)
    assert one == other


class Described(BaseModel):
    """A ticket, in words that the model reads."""

    title: str
    priority: int | None = None


def test_an_empty_stream_is_not_stored(model: StandIn, openai_asking: Asking) -> None:
    model.behaviour.answer_with = {"tasks": []}
    with llmcache.capture() as calls:
        assert openai_asking.iterable() == []
    assert said(calls) == [("miss", False)]
    assert "no item" in calls[0].reason


class Numbered(BaseModel):
    """Another one each time that it is validated."""

    title: str

    @field_validator("title")
    @classmethod
    def _number(cls, title: str) -> str:
        return f"{title} {next(numbers)}"


numbers = itertools.count()


@WAYS
def test_what_would_come_back_different_is_not_stored(
    model: StandIn, openai_asking: Asking, way: str
) -> None:
    answer_with_tickets(model, way)
    with llmcache.capture() as calls:
        assert getattr(openai_asking, way)(Numbered)
    assert said(calls) == [("miss", False)]
    assert "different" in calls[0].reason


class Stamped(BaseModel):
    title: str
    number: UUID = Field(default_factory=uuid4)


@WAYS
def test_defaults_that_were_made_up_are_kept(
    model: StandIn, openai_asking: Asking, way: str
) -> None:
    answer_with_tickets(model, way)
    live, hit = getattr(openai_asking, way)(Stamped), getattr(openai_asking, way)(Stamped)
    assert len(model.calls) == 1
    assert same(hit[-1], live[-1])


class Known(BaseModel):
    title: str

    @field_validator("title")
    @classmethod
    def _is_known(cls, title: str, info: ValidationInfo) -> str:
        assert title in (info.context or {})["titles"]
        return title


@WAYS
def test_the_context_reaches_the_validators(
    model: StandIn, openai_asking: Asking, way: str
) -> None:
    answer_with_tickets(model, way)
    context = {"titles": ["Fire", "Flood"]}
    for _ in range(2):
        assert getattr(openai_asking, way)(Known, context=context)[-1].title in context["titles"]
    assert len(model.calls) == 1


class Seen(BaseModel):
    title: str
    priority: int | None = None

    @field_validator("title")
    @classmethod
    def _see(cls, title: str) -> str:
        seen.append(title)
        return title


seen: list[str] = []


def test_validators_run_for_the_last_partial_model_only(
    model: StandIn, openai_asking: Asking
) -> None:
    model.behaviour.answer_with = FIRE
    seen.clear()
    assert len(openai_asking.partial(Seen)) > 2
    assert set(seen) == {"Fire"}


def test_what_the_caller_changes_is_stored_as_it_came(model: StandIn) -> None:
    model.behaviour.answer_with = FIRE
    asking = make_asking(model, "openai", Mode.TOOLS, is_async=True)

    async def changing() -> None:
        call = {"response_model": Ticket, "messages": MESSAGES}
        async for ticket in asking.client.create_partial(**call):
            ticket.title = "changed"

    asyncio.run(changing())
    assert asking.partial() == TICKETS[:1]


def test_of_partial_models_only_the_last_is_measured(
    model: StandIn, openai_asking: Asking, settings: Any
) -> None:
    settings.LLMCACHE = {"CACHE": None, "MAX_ENTRY_BYTES": 1000, "STORE_REQUESTS": "digest"}
    model.behaviour.answer_with = {"title": "Fire " * 100}
    with llmcache.capture() as calls:
        partials = openai_asking.partial()
    assert sum(len(ticket.title or "") for ticket in partials) > 2000
    assert said(calls) == [("miss", True)]


def test_a_stream_that_is_too_large(model: StandIn, openai_asking: Asking, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "MAX_ENTRY_BYTES": 100}
    model.behaviour.answer_with = {"tasks": [FIRE] * 20}
    with llmcache.capture() as calls:
        assert len(openai_asking.iterable()) == 20
    assert said(calls) == [("miss", False)]
    assert "MAX_ENTRY_BYTES" in calls[0].reason


def at_most_one(answer: Any, completion: Any) -> bool:
    assert completion is None
    return len(answer) <= 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_rule_of_the_project_is_given_the_items(
    model: StandIn, openai_asking: Asking, settings: Any, number: int
) -> None:
    settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.at_most_one"}
    model.behaviour.answer_with = {"tasks": [FIRE] * number}
    with llmcache.capture() as calls:
        openai_asking.iterable()
    assert calls[0].stored is (number == 1)


# What is stored


def test_streams_have_keys_of_their_own(model: StandIn) -> None:
    client = make_asking(model, "openai", Mode.TOOLS, is_async=False).client

    def key(response_model: Any, **arguments: Any) -> str:
        call = {"response_model": response_model, "messages": MESSAGES} | arguments
        return llmcache.key_for(client, **call)

    keys = {
        key(list[Ticket]),
        key(list[Ticket], stream=True),
        key(list[Cat], stream=True),
        key(list[Cat | Dog], stream=True),
        key(instructor.Partial[Ticket], stream=True),
        key(instructor.Partial[Cat], stream=True),
    }
    assert len(keys) == 6
    partial = key(instructor.Partial[Ticket], stream=True)
    assert key(instructor.Partial[Ticket], stream=True) == partial


def test_the_entry_can_be_read(model: StandIn, openai_asking: Asking) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE, FLOOD]}
    with llmcache.capture() as calls:
        openai_asking.iterable()
    found = store.lookup(calls[0].key)
    assert isinstance(found, store.Found)
    stored = StoredAnswer.unpack(found.body)
    assert stored.answer == b'[{"title":"Fire","priority":1},{"title":"Flood"}]'
    assert durable.entries().get().response_model.endswith("Iterable[tests.support.ticket.Ticket]")


def test_invalidation_by_response_model(model: StandIn, openai_asking: Asking) -> None:
    model.behaviour.answer_with = FIRE
    openai_asking.partial()
    model.behaviour.answer_with = {"tasks": [FIRE]}
    openai_asking.iterable()
    assert llmcache.invalidate(response_model=Ticket).entries == 1
    assert llmcache.invalidate(response_model=Iterable[Ticket]).entries == 1


def test_sync_and_async_share_entries(model: StandIn) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE]}
    one, other = (make_asking(model, "openai", Mode.TOOLS, is_async=way) for way in (False, True))
    assert same(one.iterable(), other.iterable())
    assert len(model.calls) == 1


def test_the_tokens_of_a_stream_are_noted_where_they_are_said(
    model: StandIn, is_async: bool
) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE]}
    make_asking(model, "openai", Mode.RESPONSES_TOOLS, is_async).iterable()
    entry = durable.entries().get()
    assert entry.input_tokens
    assert entry.output_tokens


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        ({"choices": [{"finish_reason": "length", "delta": {}}]}, "cut short"),
        ({"choices": [{"finish_reason": None, "delta": {"refusal": "No."}}]}, "refused"),
        ({"choices": [{"finish_reason": "stop", "delta": {"refusal": None}}]}, ""),
        ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, "cut short"),
        ({"type": "message_delta", "delta": {"stop_reason": "refusal"}}, "refused"),
        ({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, ""),
        (
            {"response": {"incomplete_details": {"reason": "max_output_tokens"}}},
            "cut short",
        ),
        ({"type": "response.refusal.delta", "delta": "No."}, "refused"),
        ({"response": {"output": [{"content": [{"refusal": "No."}]}]}}, "refused"),
        ({"type": "response.completed", "response": {"incomplete_details": None}}, ""),
        ({"response": {"object": "response", "status": "in_progress"}}, ""),
        ({"response": {"object": "response", "status": "cancelled"}}, "(cancelled)"),
        (
            {"type": "response.incomplete", "response": {"object": "response", "status": None}},
            "(incomplete)",
        ),
        ({"type": "response.failed", "response": {}}, "(failed)"),
        ({"type": "error", "message": "overloaded"}, "an error"),
        ({"choices": [{"finish_reason": None, "error": {"code": 502}}]}, "an error"),
        ({"choices": [{"finish_reason": "eos", "delta": {}}]}, "(eos)"),
        ({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}, "(pause_turn)"),
    ],
    ids=str,
)
def test_the_words_of_chunks(chunk: dict[str, Any], reason: str) -> None:
    found = why_chunk_not_admitted(_nested(chunk))
    assert (reason in str(found)) if reason else (found is None)


@pytest.mark.parametrize(
    ("chunk", "ends"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, True),
        ({"data": {"choices": [{"finish_reason": "stop"}]}}, True),
        ({"choices": [{"finish_reason": None}]}, False),
        ({"choices": [{"finish_reason": "length"}]}, False),
        ({"choices": []}, False),
        ({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, True),
        ({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}, False),
        ({"type": "message_stop"}, False),
        ({"candidates": [{"finish_reason": "STOP"}]}, True),
        ({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}, True),
        ({"type": "response.output_text.delta", "delta": "x"}, False),
        (
            {"type": "response.created", "response": {"object": "response", "status": "queued"}},
            False,
        ),
        (
            {
                "type": "response.in_progress",
                "response": {
                    "object": "response",
                    "status": "in_progress",
                    "output": [{"status": "completed"}],
                },
            },
            False,
        ),
        ({"type": "response.completed", "response": {}}, True),
        (
            {"type": "response.completed", "response": {"object": "response", "status": "failed"}},
            False,
        ),
        ({"type": "response.failed", "response": {}}, False),
    ],
    ids=str,
)
def test_which_chunk_is_the_end(chunk: dict[str, Any], ends: bool) -> None:
    assert any(ends_in(_nested(chunk)).values()) is ends


def test_each_answer_of_a_stream_has_an_end_of_its_own() -> None:
    both = [{"index": 1, "finish_reason": "stop"}, {"index": 0, "finish_reason": None}]
    assert ends_in({"choices": both}) == {1: True, 0: False}
    assert ends_in({"candidates": [{"finishReason": None}, {"finishReason": "STOP"}]}) == {
        0: False,
        1: True,
    }
