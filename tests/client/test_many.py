"""`create_many` and `acreate_many`, and the lookup of many keys."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import instructor
import pytest
from asgiref.sync import async_to_sync
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches
from django.db import connection, transaction
from pydantic import BaseModel, Field, field_validator

import llmcache
from llmcache import store
from llmcache.background import database
from llmcache.client.many.batch import Result
from llmcache.outcomes import Tier
from llmcache.reasons import ReasonCode
from llmcache.store import lookups
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.backends import (
    ALL_DATABASES,
    ALL_HOT_TIERS,
    Backend,
    backend_parameters,
    statements,
)
from tests.support.clients import Scripted, make_client
from tests.support.entries import draft
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Many = Callable[..., list[Result]]


def request(number: int = 0, **arguments: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Ticket {number}"}]
    return {"response_model": Ticket, "messages": messages} | arguments


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


class AsyncScripted(Scripted):
    async def __call__(self, **arguments: Any) -> Any:
        text = self._begin(arguments)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.running -= 1
            raise
        return self._end(text)

    def client(self) -> Any:
        plain = instructor.patch(create=self.__call__, mode=instructor.Mode.TOOLS)
        made = instructor.AsyncInstructor(client=None, create=plain, mode=instructor.Mode.TOOLS)
        return llmcache.wrap(made, model="m", endpoint="scripted")


@pytest.fixture(params=["sync", "async"])
def scripted(request: pytest.FixtureRequest) -> Any:
    """Makes a scripted model, and `create_many` with a client that asks it."""

    def make(**script: Any) -> tuple[Scripted, Many]:
        if request.param == "sync":
            model = Scripted(**script)
            client = model.client()
            return model, lambda *given, **options: llmcache.create_many(client, *given, **options)
        amodel = AsyncScripted(**script)
        aclient = amodel.client()

        async def run(*given: Any, **options: Any) -> list[Result]:
            return await llmcache.acreate_many(aclient, *given, **options)

        return amodel, async_to_sync(run)

    return make


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
    # (SQLite has one writer: while a lease is being given back, no copies are made)
    assert all(workers.drain(30) for workers in database._all())
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

    for name in ("read", "read_many", "write"):
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


# Progress and interruptions


def test_progress_is_told_after_each(scripted: Any) -> None:
    _, many = scripted()
    many([request(1)])
    told: list[tuple[int, int]] = []
    many(
        [request(0), request(1), request(1)],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_error_in_progress_loses_no_answer(scripted: Any) -> None:
    model, many = scripted(seconds=0.5)

    def fail(done: int, total: int) -> None:
        raise LookupError(done)

    with pytest.raises(LookupError):
        many([request(number) for number in range(9)], concurrency=3, progress=fail)
    # Each of the three under way may be followed by one before the first is stored and told.
    assert len(model.asked) <= 6
    assert durable.entries().count() == len(model.asked)


async def test_cancelling_cancels_the_calls() -> None:
    model = AsyncScripted(seconds=30)
    client = model.client()
    task = asyncio.create_task(
        llmcache.acreate_many(client, [request(number) for number in range(9)], concurrency=3)
    )
    async with asyncio.timeout(10):
        while model.running < 3:  # noqa: ASYNC110 - a thread may note it
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.running == 0
    assert len(model.asked) == 3
    assert len(asyncio.all_tasks()) == 1


# Where the rows are written


def test_inside_a_transaction_of_the_one_writer() -> None:
    """The threads that ask write nothing: only the caller knows of its transaction."""
    model = Scripted()
    client = model.client()
    with transaction.atomic():
        durable.entries().update(hits=0)
        results = llmcache.create_many(client, [request(0), request(1)])
        assert all(result.call.stored for result in results)
    deadline = time.monotonic() + 10
    while durable.entries().count() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert durable.entries().count() == 2
    assert threading.get_ident() not in model.threads


@pytest.mark.django_db(transaction=False)
def test_inside_the_transaction_of_a_test() -> None:
    results = llmcache.create_many(Scripted().client(), [request(0), request(1)])
    assert [result.call.reason for result in results] == ["", ""]
    assert connection.in_atomic_block
    assert durable.entries().count() == 2


# Looking many keys up


def keys(number: int) -> list[str]:
    return [f"{n:064x}" for n in range(number)]


def test_many_are_found(backend: Backend) -> None:
    one, two, three = keys(3)
    store.save(draft(one, b"1"))
    store.save(draft(two, b"2", ttl=None))
    hot.delete([one])
    found = store.lookup_many([one, two, three])
    first = Tier.HOT if backend.cache else Tier.DURABLE
    assert list(found) == [one, two, three]
    assert body_and_tier(found[one]) == (b"1", Tier.DURABLE)
    assert body_and_tier(found[two]) == (b"2", first)
    assert found[three] == Missing()
    # They came back into the hot tier.
    again = store.lookup_many([one, two])
    assert [body_and_tier(each) for each in again.values()] == [(b"1", first), (b"2", first)]


def body_and_tier(found: Found | Missing) -> tuple[bytes, Tier] | None:
    return (found.body, found.tier) if isinstance(found, Found) else None


@pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, ALL_HOT_TIERS[:2]), indirect=True
)
def test_what_may_not_be_served_is_not_found(backend: Backend) -> None:
    good, expired, stale, damaged, moved = keys(5)
    store.save(draft(good))
    for key in (expired, stale):
        store.save(draft(key, ttl=-1))
    store.save(draft(damaged))
    durable.entries().filter(key=damaged).update(payload=b"nonsense")
    hot.delete([good, damaged])
    found = store.lookup_many([good, expired, stale, damaged, moved], stale=[stale])
    assert [key for key, each in found.items() if isinstance(each, Found)] == [good, stale]
    assert isinstance(each := found[stale], Found)
    assert not each.fresh
    assert hot.read_many([expired, stale, damaged]) == {}


async def test_the_twin_for_coroutines(transactional_db: None) -> None:
    one, two = keys(2)
    await store.asave(draft(one))
    found = await store.alookup_many([one, two])
    assert [type(each) for each in found.values()] == [Found, Missing]


def test_many_more_than_one_query_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "KEYS_PER_QUERY", 4)
    for key in keys(10):
        store.save(draft(key))
    with statements() as seen:
        found = store.lookup_many(keys(10))
    assert len([sql for sql in seen if sql.startswith("SELECT")]) == 3
    assert all(isinstance(each, Found) for each in found.values())


def test_a_failing_tier_is_a_miss_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Iterator[Any]:
        raise OSError("gone")

    monkeypatch.setattr(durable, "read", fail)
    [found] = store.lookup_many(keys(1)).values()
    assert found == Missing(
        (ReasonCode.TIER_FAILED(tier="durable", operation="read", error="OSError"),)
    )


def test_a_missing_alias_of_the_hot_tier_keeps_nobody_from_the_rows(settings: Any) -> None:
    [key] = keys(1)
    store.save(draft(key))
    settings.LLMCACHE = {"CACHE": "missing"}
    assert isinstance(store.lookup_many([key])[key], Found)
