"""Laws C and D: what was asked before an invalidation is not stored by it, nor brought back.

The model answers after a second; meanwhile somebody invalidates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import instructor
import pytest

import llmcache
from llmcache.outcomes import Call
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.ticket import Ticket

pytestmark = pytest.mark.slow

LATENCY = 1.0

MODEL = "gpt-4.1-mini"

FITTING: dict[str, dict[str, Any]] = {
    "tags": {"tags": ["other", "late"]},
    "namespace": {"namespace": "late"},
    "model": {"model": MODEL},
    "response_model": {"response_model": Ticket},
    "before": {"before": timedelta(0)},
    "several": {"tags": ["late"], "namespace": "late", "model": MODEL},
    "everything": {"everything": True},
}

OTHERS: dict[str, dict[str, Any]] = {
    "tags": {"tags": ["other"]},
    "namespace": {"namespace": "other"},
    "model": {"model": "other"},
    "response_model": {"response_model": "tests.other.Ticket"},
    "before": {"before": timedelta(days=1)},
    "keys": {"keys": ["f" * 64]},
    "several": {"tags": ["late"], "namespace": "other"},
}

on_all_databases = pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, [None]), indirect=True
)

on_one = pytest.mark.parametrize("backend", backend_parameters(["default"], [None]), indirect=True)


def one_call(model: StandIn) -> Callable[[], Any]:
    client = make_client(model, namespace="late", tags=["late"])
    return partial(client.create, **CALL)


def one_awaited_call(model: StandIn) -> Callable[[], Any]:
    client = make_client(model, namespace="late", tags=["late"], async_client=True)

    async def ask() -> Any:
        return await client.create(**CALL)

    return lambda: asyncio.run(ask())


def many_calls(model: StandIn) -> Callable[[], Any]:
    client = make_client(model, namespace="late", tags=["late"])
    return partial(llmcache.create_many, client, [CALL])


def a_function(model: StandIn) -> Callable[[], Any]:
    plain: Any = instructor.from_provider(
        f"openai/{MODEL}", api_key="k", base_url=model.url, default_headers=CLOSE
    )

    @llmcache.cached(namespace="late", tags=["late"], exclude=["plain"])
    def extract() -> Ticket:
        answer: Ticket = plain.create(**CALL)
        return answer

    return extract


def a_cache_of_instructor(model: StandIn) -> Callable[[], Any]:
    client: Any = instructor.from_provider(
        f"openai/{MODEL}",
        api_key="k",
        base_url=model.url,
        default_headers=CLOSE,
        cache=llmcache.DjangoCache(namespace="late"),
        cache_namespace="late",
    )
    return partial(client.create, **CALL)


def a_stream(model: StandIn) -> Callable[[], Any]:
    client = make_client(model, namespace="late", tags=["late"])
    return lambda: list(client.create_iterable(**CALL))


ASKING = [one_call, one_awaited_call, many_calls, a_function, a_cache_of_instructor, a_stream]


def invalidate_meanwhile(standin: StandIn, ask: Callable[[], Any], **criteria: Any) -> list[Call]:
    """Invalidate while the model answers what `ask` asks; the calls that were seen."""
    standin.latency = LATENCY

    def asking() -> list[Call]:
        with llmcache.capture() as calls:
            assert ask()
        return calls

    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(asking)
        deadline = time.monotonic() + 30
        while not standin.calls and not asked.done() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not asked.done()
        result = llmcache.invalidate(**criteria)
        assert (result.entries, result.pending) == (0, ())
        assert not asked.done(), "the invalidation waited for the model"
        return asked.result()


@on_all_databases
@pytest.mark.parametrize("criteria", FITTING.values(), ids=FITTING)
def test_a_late_answer_is_not_stored(
    model: StandIn, backend: Backend, criteria: dict[str, Any]
) -> None:
    [call] = invalidate_meanwhile(model, one_call(model), **criteria)
    assert (call.outcome, call.stored) == ("miss", False)
    assert "invalidated" in call.reason
    assert not durable.entries().exists()


@on_one
@pytest.mark.parametrize("criteria", OTHERS.values(), ids=OTHERS)
def test_an_answer_that_was_not_meant_is_stored(
    model: StandIn, backend: Backend, criteria: dict[str, Any]
) -> None:
    [call] = invalidate_meanwhile(model, one_call(model), **criteria)
    assert (call.outcome, call.stored, call.reason) == ("miss", True, "")
    assert durable.entries().count() == 1


@on_one
def test_by_its_key(model: StandIn, backend: Backend) -> None:
    client = make_client(model, namespace="late")
    key = llmcache.key_for(client, **CALL)
    [call] = invalidate_meanwhile(model, partial(client.create, **CALL), keys=[key])
    assert call.stored is False
    assert not durable.entries().exists()


@on_one
@pytest.mark.parametrize("asking", ASKING, ids=lambda asking: asking.__name__)
def test_of_each_way_in(
    model: StandIn, backend: Backend, asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the generation, whatever the clocks say."""
    monkeypatch.setattr(late_answers, "CLOCK_SECONDS", -3600.0)
    ask = asking(model)
    invalidate_meanwhile(model, ask, namespace="late")
    assert not durable.entries().exists()


@on_one
@pytest.mark.parametrize("asking", ASKING, ids=lambda asking: asking.__name__)
def test_what_is_asked_afterwards_is_stored(model: StandIn, backend: Backend, asking: Any) -> None:
    ask = asking(model)
    invalidate_meanwhile(model, ask, namespace="late")
    ask()
    assert durable.entries().count() == 1
    asked = len(model.calls)
    ask()
    assert len(model.calls) == asked
