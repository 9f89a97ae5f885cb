"""What the existing caches get wrong, one test each: none of it holds of llmcache.

The numbers are those of the list of defects of instructor's own cache, in the order in which they
were found; after them, what other caches for language models add.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import instructor
import pytest
from django.core.cache import caches
from pydantic import BaseModel, Field, create_model, field_validator

import llmcache
from llmcache.store.hot import tier as hot
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import unreachable
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def outcomes_of(client: Any, *calls: dict[str, Any]) -> list[str]:
    with llmcache.capture() as captured:
        for call in calls:
            client.create(**call)
    return [str(call.outcome) for call in captured]


def test_01_two_clients_share_without_a_namespace(model: StandIn) -> None:
    assert outcomes_of(make_client(model), CALL) == ["miss"]
    assert outcomes_of(make_client(model), CALL) == ["hit"]


def test_02_keys_headers_and_timeouts_are_no_identity(model: StandIn) -> None:
    make_client(model, api_key="old").create(**CALL)
    rotated = make_client(model, api_key="new", timeout=3)
    assert outcomes_of(rotated, CALL | {"extra_headers": {"X-Request-ID": "7"}}) == ["hit"]


def test_03_a_cache_that_is_down_costs_nobody_an_answer(model: StandIn) -> None:
    with unreachable("default"):
        assert outcomes_of(make_client(model), CALL, CALL) == ["miss", "miss"]


def test_04_a_stored_value_that_no_longer_validates_is_a_miss(model: StandIn) -> None:
    allowed = {"Fire"}

    class Picky(BaseModel):
        title: str

        @field_validator("title")
        @classmethod
        def _check(cls, value: str) -> str:
            if value not in allowed:
                raise ValueError("not allowed any more")
            return value

    client, call = make_client(model), CALL | {"response_model": Picky}
    model.behaviour.answer_with = {"title": "Fire"}
    client.create(**call)
    allowed.clear()
    allowed.add("Water")
    model.behaviour.answer_with = {"title": "Water"}
    assert outcomes_of(client, call, call) == ["miss", "hit"]


class Awkward(BaseModel):
    """An alias, a field left out of dumps, a validator that is not idempotent."""

    a: int = Field(alias="the_a")
    secret: str = Field(exclude=True)

    @field_validator("a")
    @classmethod
    def _ten_times(cls, value: int) -> int:
        return value * 10


def test_05_what_a_dump_does_not_bring_back_comes_back_right(model: StandIn) -> None:
    client, call = make_client(model), CALL | {"response_model": Awkward}
    model.behaviour.answer_with = {"the_a": 1, "secret": "s"}
    live, hit = client.create(**call), client.create(**call)
    assert len(model.calls) == 1
    assert (hit.a, hit.secret) == (live.a, live.secret) == (10, "s")


def test_06_keys_do_not_coerce(model: StandIn) -> None:
    contexts = [{"m": {1: 100}}, {"m": {"1": 100}}, {"m": {True: 100}}, {"m": {1.5: 100}}]
    calls = [CALL | {"context": context} for context in contexts]
    assert outcomes_of(make_client(model), *calls) == ["miss"] * 4


@pytest.mark.parametrize("value", [UUID(int=1), date(2026, 1, 1), timedelta(days=1)], ids=str)
def test_07_uuids_and_dates_have_a_key(model: StandIn, value: Any) -> None:
    call = CALL | {"context": {"value": value}}
    assert outcomes_of(make_client(model), call, call) == ["miss", "hit"]


def test_07_what_has_no_key_says_so(model: StandIn) -> None:
    with llmcache.capture() as calls:
        make_client(model).create(**CALL, context={"function": print})
    assert calls[0].outcome == "bypass"
    assert "context['function']" in calls[0].reason


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    "response_model", [list[Ticket], int, str, Literal["a", "b"], Colour, None], ids=str
)
def test_08_every_shape_is_stored(model: StandIn, response_model: Any) -> None:
    call = CALL | {"response_model": response_model}
    assert outcomes_of(make_client(model), call, call) == ["miss", "hit"]


def test_09_the_asynchronous_client_leaves_the_event_loop(model: StandIn) -> None:
    client, threads = make_client(model, async_client=True), set()
    read = durable.read

    def noting(*args: Any, **kwargs: Any) -> tuple[bytes | None, int]:
        threads.add(threading.current_thread().name)
        return read(*args, **kwargs)

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "read", noting)
            for _ in range(2):
                assert await client.create(**CALL)

    asyncio.run(main())
    assert len(model.calls) == 1
    assert all(name.startswith("llmcache") for name in threads)


def test_10_identical_calls_at_once_ask_once(model: StandIn) -> None:
    model.latency = 0.5  # seconds
    client = make_client(model)
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: client.create(**CALL), range(50)))
    assert len(model.calls) == 1
    assert all(answer == answers[0] for answer in answers)
    assert len({id(answer) for answer in answers}) == 50


def test_10_identical_calls_at_once_of_coroutines_ask_once(model: StandIn) -> None:
    model.latency = 0.5
    client = make_client(model, async_client=True)

    async def main() -> list[Any]:
        return await asyncio.gather(*(client.create(**CALL) for _ in range(50)))

    answers = asyncio.run(main())
    assert len(model.calls) == 1
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("ttl", [3600.0, timedelta(hours=1)], ids=str)
def test_11_floats_and_timedeltas_are_times_to_live(model: StandIn, ttl: Any) -> None:
    make_client(model).create(**CALL, cache_ttl=ttl)
    row: Any = durable.entries().get()
    assert 3419 < (row.expires_at - row.created_at).total_seconds() < 3602


@pytest.mark.parametrize("ttl", [True, -5], ids=str)
def test_11_true_and_negative_numbers_are_none(model: StandIn, ttl: Any) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        make_client(model).create(**CALL, cache_ttl=ttl)


def test_12_a_hit_is_told_and_is_no_bill(model: StandIn) -> None:
    client, tokens = make_client(model), []
    client.on("completion:usage", lambda usage, **kwargs: tokens.append(usage.total_tokens))
    assert outcomes_of(client, CALL, CALL) == ["miss", "hit"]
    assert len(tokens) == 1


def test_13_entries_can_be_listed_and_removed(model: StandIn) -> None:
    client = make_client(model, namespace="support")
    client.create(**CALL, cache_tags=["doc:42"])
    assert durable.entries().in_namespace("support").tagged(["doc:42"]).count() == 1
    assert llmcache.invalidate(tags=["doc:42"]).entries == 1
    assert outcomes_of(client, CALL) == ["miss"]


# What other caches add


def test_peers_a_parameter_of_tomorrow_counts(model: StandIn) -> None:
    client = make_client(model)
    tomorrow = CALL | {"extra_body": {"a_parameter_of_tomorrow": 1}}
    assert outcomes_of(client, CALL, tomorrow) == ["miss", "miss"]


def test_peers_a_changed_schema_misses(model: StandIn) -> None:
    calls = [
        CALL | {"response_model": create_model("Same", **fields)}
        for fields in ({"title": (str, ...)}, {"title": (str, ...), "note": (str, "")})
    ]
    assert outcomes_of(make_client(model), *calls) == ["miss", "miss"]


@pytest.mark.parametrize("cache", ["database"])
def test_peers_no_pickle_of_ours_is_in_the_store(model: StandIn, settings: Any, cache: str) -> None:
    settings.LLMCACHE = {"CACHE": cache}
    caches[cache].clear()
    make_client(model).create(**CALL)
    row = durable.entries().get()
    for data in (bytes(row.payload), hot.read(row.key) or b""):
        assert data.startswith(b"LLC\x01")


def test_peers_tenants_do_not_share(model: StandIn) -> None:
    assert outcomes_of(make_client(model, namespace="tenant:1"), CALL) == ["miss"]
    assert outcomes_of(make_client(model, namespace="tenant:2"), CALL) == ["miss"]


def test_peers_expiry_is_enforced(model: StandIn) -> None:
    client = make_client(model)
    assert outcomes_of(client, CALL | {"cache_ttl": 1e-6}, CALL) == ["miss", "miss"]


def test_instructor_still_has_the_first_of_them(model: StandIn) -> None:
    """So that this list is looked at again once it is mended there."""
    for _ in range(2):
        client: Any = instructor.from_provider(
            "openai/gpt-4.1-mini",
            cache=llmcache.DjangoCache(),
            api_key="k",
            base_url=model.url,
            default_headers=CLOSE,
        )
        client.create(**CALL)
    assert len(model.calls) == 2
