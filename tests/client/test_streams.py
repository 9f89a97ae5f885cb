"""Streams of instructor: passed on live, stored when they ran to their end, and replayed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from instructor import Mode
from instructor.v2.dsl.response_list import ListResponse

import llmcache
from llmcache.codec.equality import same
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import MESSAGES
from tests.support.shapes import Cat, Dog
from tests.support.streams import (
    FIRE,
    FLOOD,
    MODES,
    TICKETS,
    WAYS,
    Asking,
    answer_with_tickets,
    make_asking,
    said,
)
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ANIMALS = [{"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": ["sit"]}]

HIT_AFTER_MISS = [("miss", True), ("hit", False)]


def test_items_are_replayed(model: StandIn, asking: Asking) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE, FLOOD]}
    with llmcache.capture() as calls:
        live, hit = asking.iterable(), asking.iterable()
    assert said(calls) == HIT_AFTER_MISS
    assert len(model.calls) == 1
    assert same(live, TICKETS)
    assert same(hit, live)


def test_the_complete_object_is_replayed(model: StandIn, asking: Asking) -> None:
    model.behaviour.answer_with = FIRE
    with llmcache.capture() as calls:
        live, hit = asking.partial(), asking.partial()
    assert said(calls) == HIT_AFTER_MISS
    assert len(model.calls) == 1
    assert same(live[-1], Ticket(**FIRE))
    assert same(hit, live[-1:])


def test_unions(model: StandIn, asking: Asking) -> None:
    model.behaviour.answer_with = {"tasks": ANIMALS}
    with llmcache.capture() as calls:
        live, hit = asking.iterable(Cat | Dog), asking.iterable(Cat | Dog)
    assert said(calls) == HIT_AFTER_MISS
    assert same(live, [Cat(kind="cat", lives=9), Dog(kind="dog", tricks=["sit"])])
    assert same(hit, live)


@WAYS
@pytest.mark.parametrize(("behaviour", "why"), [("truncate", "cut short"), ("refuse", "refused")])
def test_what_is_cut_short_is_not_stored(
    model: StandIn, asking: Asking, way: str, behaviour: str, why: str
) -> None:
    answer_with_tickets(model, way)
    setattr(model.behaviour, behaviour, True)
    with llmcache.capture() as calls:
        try:
            getattr(asking, way)()
        except Exception:  # noqa: BLE001 - of a text that is no JSON, instructor makes an error
            why = "was raised"
    assert said(calls) == [("miss", False)]
    assert why in calls[0].reason
    assert not durable.entries().exists()


@WAYS
def test_what_is_filtered_is_not_stored(model: StandIn, openai_asking: Asking, way: str) -> None:
    answer_with_tickets(model, way)
    model.behaviour.filter = True
    with llmcache.capture() as calls:
        assert getattr(openai_asking, way)()
    assert said(calls) == [("miss", False)]
    assert "filtered" in calls[0].reason


@WAYS
def test_a_broken_connection_is_the_callers(
    model: StandIn, openai_asking: Asking, way: str
) -> None:
    answer_with_tickets(model, way)
    model.hang_up_after = 3
    with llmcache.capture() as calls, pytest.raises(Exception, match=r"peer closed|incomplete"):
        getattr(openai_asking, way)()
    assert said(calls) == [("miss", False)]
    assert "was raised" in calls[0].reason
    assert not durable.entries().exists()


@WAYS
def test_only_if_cached_asks_nobody(model: StandIn, openai_asking: Asking, way: str) -> None:
    answer_with_tickets(model, way)
    with pytest.raises(llmcache.CacheMiss):
        getattr(openai_asking, way)(cache_mode="only-if-cached")
    assert not model.calls
    live = getattr(openai_asking, way)()
    assert getattr(openai_asking, way)(cache_mode="only-if-cached")[-1] == live[-1]


def test_no_store_passes_through(model: StandIn, openai_asking: Asking) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE]}
    with llmcache.capture() as calls:
        for _ in range(2):
            assert openai_asking.iterable(cache_mode="no-store") == TICKETS[:1]
    assert said(calls) == [("bypass", False)] * 2


def test_synchronous_partials_are_a_list(model: StandIn) -> None:
    model.behaviour.answer_with = FIRE
    client = make_asking(model, "openai", Mode.TOOLS, is_async=False).client
    for _ in range(2):
        given = client.create_partial(response_model=Ticket, messages=MESSAGES)
        assert type(given) is ListResponse
        assert given[-1] == TICKETS[0]


# While a stream is under way


async def _first(asking: Asking, while_open: Callable[[], None]) -> None:
    """Read the first item only, and then close the stream."""
    call = {"response_model": Ticket, "messages": MESSAGES} | asking.limits
    stream = asking.client.create_iterable(**call)
    if asking.is_async:
        assert await anext(stream) == TICKETS[0]
        while_open()
        await stream.aclose()
        await asyncio.sleep(0.1)
    else:
        assert next(stream) == TICKETS[0]
        while_open()
        stream.close()


@pytest.mark.parametrize(("provider", "mode"), [MODES[0], MODES[3], MODES[4]])
def test_one_that_stops_early(model: StandIn, provider: str, mode: Mode, is_async: bool) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE, *[FLOOD] * 50]}
    model.chunk_delay = 0.005
    asking = make_asking(model, provider, mode, is_async)
    open_streams = []

    def note() -> None:
        open_streams.append(model.open_streams)

    def stop_early() -> None:
        asyncio.run(_first(asking, note)) if is_async else _drain(_first(asking, note))

    with llmcache.capture() as calls:
        stop_early()
    # The first item was there before the model had said the last.
    assert open_streams == [1]
    deadline = time.monotonic() + 5
    while model.open_streams and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (model.open_streams, model.abandoned_streams) == (0, 1)
    assert said(calls) == [("miss", False)]
    assert "not read to its end" in calls[0].reason
    assert not durable.entries().exists()


def _drain(coroutine: Any) -> None:
    """Run what awaits nothing, without an event loop: Django refuses to query inside of one."""
    with pytest.raises(StopIteration):
        coroutine.send(None)
