"""`create_many` and `acreate_many`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import instructor
import pytest
from asgiref.sync import async_to_sync
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches
from pydantic import BaseModel, Field, field_validator

import llmcache
from llmcache.client.many.batch import Result
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.backends import (
    statements,
)
from tests.support.clients import Scripted, make_client
from tests.support.many import Many, request
from tests.support.ticket import Ticket
from tests.support.waiting import await_lease

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=["sync", "async"])
def many(request: pytest.FixtureRequest, model: StandIn) -> Many:
    """`create_many`, and `acreate_many` run to its end."""
    if request.param == "sync":
        client = make_client(model)
        return lambda requests, **options: llmcache.create_many(client, requests, **options)
    aclient = make_client(model, async_client=True)

    async def run(requests: Any, **options: Any) -> list[Result]:
        # A task of its own, as most callers have.
        return await llmcache.acreate_many(aclient, requests, **options)

    return async_to_sync(run)


def outcomes(results: list[Result]) -> list[tuple[str, str | None]]:
    return [(result.call.outcome, result.call.tier) for result in results]


def titles(results: list[Result]) -> list[str]:
    return [result.unwrap().title for result in results]


def test_nothing_is_asked_for_nothing(many: Many, model: StandIn) -> None:
    assert many([]) == []
    assert not model.calls


def test_the_order_is_kept(scripted: Any) -> None:
    model, many = scripted()
    many([request(number) for number in (3, 5)])
    results = many(request(number) for number in range(8))
    assert titles(results) == [f"Ticket {number}" for number in range(8)]
    hit, miss = ("hit", "durable"), ("miss", None)
    assert outcomes(results) == [miss, miss, miss, hit, miss, hit, miss, miss]
    assert len(model.asked) == 8


def test_what_is_identical_is_asked_once(many: Many, model: StandIn) -> None:
    results = many([request()] * 6)
    assert len(model.calls) == 1
    assert outcomes(results) == [("miss", None)] + [("hit", "local")] * 5
    answers = [result.unwrap() for result in results]
    assert all(answer == answers[0] for answer in answers)
    assert len({id(answer) for answer in answers}) == 6
    hits.flush()
    assert durable.entries().get().hits == 5


def test_what_is_found_for_many_is_an_object_for_each(many: Many, model: StandIn) -> None:
    many([request()])
    first, second = many([request()] * 2)
    assert first.unwrap() == second.unwrap()
    assert first.unwrap() is not second.unwrap()
    hits.flush()
    assert durable.entries().get().hits == 2


def test_it_shares_entries_with_create(model: StandIn) -> None:
    client = make_client(model)
    heard: list[Any] = []
    client.on("completion:kwargs", lambda *_, **kwargs: heard.append(kwargs))
    [result] = llmcache.create_many(client, [request(temperature=0.5)])
    with llmcache.capture() as calls:
        assert client.create(**request(temperature=0.5)) == result.answer
    assert [call.outcome for call in calls] == ["hit"]
    assert len(model.calls) == len(heard) == 1


def test_one_round_trip_a_tier(scripted: Any, settings: Any, monkeypatch: Any) -> None:
    model, many = scripted()
    requests = [request(number) for number in range(200)]
    many(requests, concurrency=20)
    await_lease()
    settings.LLMCACHE = {"CACHE": "database"}
    caches["database"].clear()
    trips: list[str] = []
    for name in ("get_many", "set_many", "get", "set"):
        method = getattr(type(caches["database"]), name)
        monkeypatch.setattr(
            type(caches["database"]), name, noting(trips, name, method), raising=True
        )
    reads: list[int] = []
    read = durable.read_many

    def read_noting(keys: list[str], **options: Any) -> dict[str, bytes]:
        reads.append(len(keys))
        return read(keys, **options)

    monkeypatch.setattr(durable, "read_many", read_noting)
    # (SQLite has one writer: while another thread writes, no copies are made)
    while "set_many" not in trips:
        reads.clear()
        trips.clear()
        assert {result.call.tier for result in many(requests)} == {"durable"}
    assert reads == [200]
    assert trips[0] == "get_many"
    assert trips.count("get_many") == trips.count("set_many") == 1
    assert {result.call.tier for result in many(requests)} == {"hot"}
    assert (reads, trips.count("get_many"), trips.count("get")) == ([200], 2, 0)
    assert len(model.asked) == 200


def noting(trips: list[str], name: str, method: Any) -> Any:
    def noted(self: Any, *given: Any, **options: Any) -> Any:
        trips.append(name)
        return method(self, *given, **options)

    return noted


def test_one_query(model: StandIn) -> None:
    client = Scripted().client()
    requests = [request(number) for number in range(200)]
    llmcache.create_many(client, requests)
    with statements() as seen:
        results = llmcache.create_many(client, requests)
    assert len([sql for sql in seen if sql.startswith("SELECT")]) == 1
    assert {result.call.outcome for result in results} == {"hit"}


def test_a_failure_is_that_of_its_request_alone(scripted: Any) -> None:
    model, many = scripted(fails=frozenset({"Ticket 1"}))
    results = many([request(0), request(1), request(2), request(1)])
    assert [result.error is None for result in results] == [True, False, True, False]
    assert results[1].answer is None
    with pytest.raises(Exception, match="Ticket 1"):
        results[1].unwrap()
    assert results[3].error is results[1].error
    assert (results[3].call.outcome, "raised" in results[3].call.reason) == ("miss", True)
    # No more often than by one call of `create`.
    assert model.asked.count("Ticket 0") == model.asked.count("Ticket 2") == 1
    asked = model.asked.count("Ticket 1")
    many([request(1)])
    assert model.asked.count("Ticket 1") == 2 * asked


def test_all_fail(many: Many, model: StandIn) -> None:
    model.fail_with = 401
    results = many([request(number) for number in range(3)])
    assert all("401" in str(result.error) for result in results)
    assert not durable.entries().exists()


def test_a_stop_iteration_is_a_failure_like_any_other() -> None:
    def nothing_left(**_: Any) -> Any:
        raise StopIteration("nothing left")

    made = instructor.Instructor(client=None, create=nothing_left)
    client = llmcache.wrap(made, model="m", endpoint="none")
    [result] = llmcache.create_many(client, [request()])
    assert isinstance(result.error, StopIteration)


def test_a_soft_time_limit_of_celery_ends_all(many: Many, model: StandIn) -> None:
    """A signal raises it in the middle of whatever is done; it is no failure of one request."""
    ends: list[Exception] = []

    class Slow(BaseModel):
        title: str

        @field_validator("title")
        @classmethod
        def _take_time(cls, title: str) -> str:
            for error in ends:
                raise error
            return title

    many([request(response_model=Slow)])
    ends.append(SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        many([request(response_model=Slow)])
    assert len(model.calls) == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_bound_of_concurrency(scripted: Any, concurrency: int) -> None:
    model, many = scripted(seconds=0.02)
    many([request(number) for number in range(9)], concurrency=concurrency)
    assert model.most == concurrency
    assert len(model.asked) == 9


def test_bad_entries_are_asked_within_the_bound(scripted: Any) -> None:
    model, many = scripted(seconds=0.02)
    requests = [request(number) for number in range(6)]
    many(requests)
    durable.entries().update(payload=b"nonsense")
    assert {result.call.outcome for result in many(requests, concurrency=2)} == {"miss"}
    assert len(model.asked) == 12


def test_capture_and_override(scripted: Any) -> None:
    _, many = scripted()
    with llmcache.capture() as calls, llmcache.override(namespace="tenant:1"):
        results = many([request(number) for number in range(3)])
    assert sorted(map(id, calls)) == sorted(id(result.call) for result in results)
    assert {call.namespace for call in calls} == {"tenant:1"}
    assert all(call.stored and call.seconds > 0 for call in calls)


def test_modes_hold_for_each(scripted: Any) -> None:
    model, many = scripted()
    many([request(0), request(1)])
    results = many(
        [
            request(0, cache_mode="no-store"),
            request(0, cache_mode="no-store"),
            request(1, cache_mode="reload"),
            request(1, cache_mode="reload"),
            request(1),
            request(2, cache_mode="only-if-cached"),
            request(2),
            request(2, cache_mode="only-if-cached"),
        ]
    )
    assert [result.call.outcome for result in results] == [
        *("bypass", "bypass"),
        *("reload", "hit", "hit"),
        *("miss", "miss", "hit"),
    ]
    assert isinstance(results[5].error, llmcache.CacheMiss)
    assert sorted(model.asked) == [f"Ticket {number}" for number in (0, 0, 0, 1, 1, 2)]


def test_force_cache_takes_a_stale_entry_and_others_do_not(scripted: Any) -> None:
    model, many = scripted()
    many([request(cache_ttl=0.01)])
    time.sleep(0.02)
    results = many([request(cache_mode="force-cache"), request(), request()])
    assert outcomes(results) == [("stale", "durable"), ("miss", None), ("hit", "local")]
    assert len(model.asked) == 2


def test_the_arguments_of_a_call(many: Many) -> None:
    many([request(cache_tags=["a"], cache_ttl=None, cache_namespace="n")])
    row = durable.entries().get()
    assert (row.namespace, row.expires_at) == ("n", None)
    assert [tag.tag for tag in row.tags.all()] == ["a"]


class Numbered(BaseModel):
    """No answer comes back as it was."""

    title: str
    number: float = Field(default_factory=time.perf_counter, exclude=True)


def test_what_cannot_be_stored_is_not_shared(many: Many, model: StandIn) -> None:
    model.behaviour.answer_with = {"title": "Fire"}
    for arguments in ({"response_model": Numbered}, {"cache_ttl": 0}):
        model.forget()
        results = many([request(**arguments)] * 3)
        assert len(model.calls) == 3
        assert not any(result.call.stored for result in results)
        assert len({id(result.answer) for result in results}) == 3


def test_a_failing_tier_is_no_failure(many: Many, model: StandIn, monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("gone")

    for name in ("read", "write"):
        monkeypatch.setattr(durable, name, fail)
    results = many([request(0), request(0), request(1)])
    assert len(model.calls) == 2
    assert outcomes(results) == [("miss", None), ("hit", "local"), ("miss", None)]
    assert "failed to write" in results[0].call.reason


@pytest.mark.parametrize("wrong", [{"DATABASE": "nope"}, {"DATABASE": 7}, {"WAIT_SECONDS": ""}])
def test_a_wrong_setting_is_no_failure(
    many: Many, model: StandIn, settings: Any, wrong: dict[str, Any]
) -> None:
    settings.LLMCACHE = {"CACHE": None, **wrong}
    results = many([request(0), request(1)])
    assert [result.error for result in results] == [None, None]
    assert all(result.call.reason for result in results)
    assert len(model.calls) == 2


def test_streams_and_what_has_no_key_pass_by(model: StandIn) -> None:
    client = make_client(model)
    requests = [request(context={"x": object()}), request(temperature=1)]
    streamed = request(response_model=instructor.Partial[Ticket], stream=True)
    results = llmcache.create_many(client, [*requests, requests[0], streamed])
    assert [result.call.outcome for result in results] == ["bypass", "miss", "bypass", "bypass"]
    assert "stream" in results[3].call.reason
    assert list(results[3].unwrap())[-1].title
    assert len(model.calls) == 4


@pytest.mark.parametrize(
    ("requests", "options"),
    [
        ([request(0), request(1, cache_ttl=-1)], {}),
        ([request(0), {"response_model": Ticket}], {}),
        ([request(0), {"messages": []}], {}),
        ([request(0), "hello"], {}),
        (request(0), {}),
        (None, {}),
        ([request(0)], {"concurrency": 0}),
        ([request(0)], {"concurrency": True}),
        ([request(0)], {"concurrency": 2.5}),
        ([request(0)], {"progress": 1}),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(
    many: Many, model: StandIn, requests: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        many(requests, **options)
    assert not model.calls


def test_clients_that_do_not_fit(model: StandIn) -> None:
    with pytest.raises(llmcache.InvalidArgument, match="await acreate_many"):
        llmcache.create_many(make_client(model, async_client=True), [])
    with pytest.raises(llmcache.InvalidArgument, match=r"call create_many\(\)"):
        asyncio.run(llmcache.acreate_many(make_client(model), []))
    with pytest.raises(llmcache.InvalidArgument, match="from_provider"):
        llmcache.create_many(object(), [])  # type: ignore[call-overload]
