"""`invalidate` and `ainvalidate`, on every combination of database and hot tier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

import llmcache
from llmcache import signals, store
from llmcache.background import database as placement
from llmcache.models import EntryTag, Invalidation
from llmcache.outcomes import Tier
from llmcache.removal import criteria, engine, invalidate
from llmcache.store import batches
from llmcache.store.batches import Window
from llmcache.store.hot import tier as hot
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.benchmarks import scale
from tests.support.backends import Backend, backend_parameters
from tests.support.entries import draft
from tests.support.removal import KEYS, fill, served
from tests.support.ticket import Ticket


def pending_on(backend: Backend) -> tuple[Tier, ...]:
    """Of a Redis behind another library, nobody sees that it came back with what was removed."""
    return (Tier.HOT,) if backend.cache == "django-redis" else ()


def test_by_key(backend: Backend) -> None:
    fill()
    result = llmcache.invalidate(keys=[KEYS[0], KEYS[3], "f" * 64])
    assert (result.entries, result.pending) == (2, pending_on(backend))
    assert served() == {1, 2, 4, 5, 6, 7}


def test_by_tag(backend: Backend) -> None:
    fill(tags={0: frozenset({"a"}), 1: frozenset({"b"}), 2: frozenset({"a", "b", "c"})})
    assert llmcache.invalidate(tags=["a", "c"]).entries == 2
    assert served() == {1, 3, 4, 5, 6, 7}
    assert [tag.tag for tag in EntryTag.objects.using(backend.database)] == ["b"]


def test_by_namespace(backend: Backend) -> None:
    fill(namespace={0: "acme", 1: "Acme", 2: "acme "})
    assert llmcache.invalidate(namespace="acme").entries == 1
    assert served() == set(range(1, 8))


def test_by_model_and_response_model(backend: Backend) -> None:
    path = "tests.support.ticket.Ticket"
    fill(model={0: "gpt-x", 1: "gpt-x"}, response_model={1: path, 2: path})
    assert llmcache.invalidate(model="gpt-x", response_model=Ticket).entries == 1
    assert served() == {0, 2, 3, 4, 5, 6, 7}
    assert llmcache.invalidate(response_model=path).entries == 1
    assert llmcache.invalidate(model="gpt-x").entries == 1
    assert served() == {3, 4, 5, 6, 7}


def test_by_age(backend: Backend) -> None:
    now = time.time()
    fill(created={0: now - 7200, 1: now - 3700, 2: now - 60})
    assert llmcache.invalidate(before=timedelta(hours=1)).entries == 2
    assert llmcache.invalidate(before=datetime.fromtimestamp(now - 30, tz=UTC)).entries == 1
    assert llmcache.invalidate(before=timezone.make_naive(timezone.now())).entries == 5


def test_everything(backend: Backend) -> None:
    fill()
    assert llmcache.invalidate(everything=True).entries == 8
    assert served() == set()
    assert llmcache.invalidate(everything=True).entries == 0


def test_several_criteria_narrow(backend: Backend) -> None:
    fill(namespace={0: "n", 1: "n", 2: "n"}, tags={0: frozenset({"t"}), 5: frozenset({"t"})})
    assert llmcache.invalidate(namespace="n", tags=["t"], keys=KEYS).entries == 1
    assert served() == set(range(1, 8))


def test_more_than_a_batch(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 3)
    fill()
    assert llmcache.invalidate(everything=True).entries == 8
    assert served() == set()


def test_from_a_coroutine(backend: Backend) -> None:
    fill(tags={2: frozenset({"t"})})
    result = asyncio.run(llmcache.ainvalidate(tags=["t"]))
    assert (result.entries, result.pending) == (1, pending_on(backend))
    assert served() == set(range(8)) - {2}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wrong", [{"DATABASE": "nope"}, {"DATABASE": 7}, []], ids=str)
def test_a_wrong_setting_leaves_the_rows_pending(settings: Any, wrong: Any) -> None:
    settings.LLMCACHE = wrong
    nothing = invalidate.Invalidated(pending=(Tier.DURABLE,))
    assert llmcache.invalidate(everything=True) == nothing
    assert asyncio.run(llmcache.ainvalidate(everything=True)) == nothing
    assert llmcache.invalidate(text="fire") == nothing
    with pytest.raises(llmcache.InvalidArgument):
        asyncio.run(llmcache.ainvalidate())


def test_a_long_one_from_a_coroutine_is_waited_for(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "READ_SECONDS", 0.0)
    fill()
    assert asyncio.run(llmcache.ainvalidate(everything=True)).entries == 8


def test_an_entry_stored_afterwards_is_served(backend: Backend) -> None:
    fill()
    llmcache.invalidate(everything=True)
    assert store.save(draft(KEYS[0]), late_answers.generation()) is None
    assert served() == {0}


@pytest.mark.django_db
@pytest.mark.parametrize("criteria", [{"keys": []}, {"tags": []}], ids=str)
def test_an_empty_list_names_nothing(criteria: dict[str, Any]) -> None:
    fill()
    assert llmcache.invalidate(**criteria).entries == 0
    assert served() == set(range(8))


@pytest.mark.django_db
def test_no_criterion_is_an_error() -> None:
    fill()
    with pytest.raises(ValueError, match="everything=True"):
        llmcache.invalidate()
    with pytest.raises(ValueError, match="everything=True"):
        asyncio.run(llmcache.ainvalidate())
    assert served() == set(range(8))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "criteria",
    [
        {"keys": "abc"},
        {"keys": ["typo"]},
        {"keys": [None]},
        {"keys": KEYS, "everything": True},
        {"model": 123},
        {"before": timedelta.max},
        {"tags": "doc:42"},
        {"tags": [1]},
        {"namespace": ""},
        {"namespace": 1},
        {"response_model": 1},
        {"before": 3600},
        {"before": "yesterday"},
    ],
    ids=str,
)
def test_criteria_that_cannot_be_meant(criteria: dict[str, Any]) -> None:
    fill()
    with pytest.raises(llmcache.InvalidArgument):
        llmcache.invalidate(**criteria)
    assert served() == set(range(8))


@pytest.mark.django_db
def test_a_project_without_time_zones(settings: Any) -> None:
    settings.USE_TZ = False
    with timezone.override("America/New_York"):
        fill()
        assert served() == set(range(8))
        assert llmcache.invalidate(before=datetime(2020, 1, 1, tzinfo=UTC)).entries == 0
        result = llmcache.invalidate(before=datetime.now(tz=UTC) + timedelta(minutes=1))
        assert (result.entries, result.pending) == (8, ())


@pytest.mark.django_db
def test_it_is_signalled() -> None:
    heard: list[tuple[Any, int]] = []

    def listen(sender: object, criteria: Any, entries: int, **kwargs: Any) -> None:
        heard.append((criteria.namespace, entries))

    signals.entries_invalidated.connect(listen)
    try:
        fill(namespace={1: "n"})
        llmcache.invalidate(namespace="n")
    finally:
        signals.entries_invalidated.disconnect(listen)
    assert heard == [("n", 1)]


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["database"]), indirect=True)
def test_the_rows_go_before_the_hot_copies(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round, a lookup between the two would fill the hot tier again."""
    seen: list[bool] = []
    monkeypatch.setattr(hot, "delete", lambda *_: seen.append(durable.entries().exists()))
    fill()
    seen.clear()
    llmcache.invalidate(everything=True)
    assert seen == [False]


# Progress


@pytest.mark.django_db
def test_progress_is_told_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 3)
    fill(namespace={0: "n"})
    told: list[tuple[int, int]] = []
    llmcache.invalidate(namespace="tests", progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.django_db
def test_an_error_in_progress_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 3)
    fill()
    told: list[int] = []

    def fail(done: int, total: int) -> None:
        told.append(done)
        raise ZeroDivisionError("in progress")

    with pytest.raises(ZeroDivisionError):
        llmcache.invalidate(everything=True, progress=fail)
    assert (told, served()) == ([3], set())
    row = Invalidation.objects.get()
    assert (row.entries, row.pending) == (8, "")
    assert row.finished_at is not None


# What happens meanwhile


def test_an_answer_that_is_stored_anew_meanwhile_stays(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the rows and the delete: its question was asked after all had begun."""
    fill()
    windows = batches.windows

    def store_anew_in_between(*arguments: Any) -> Iterator[Window]:
        for window in windows(*arguments):
            assert store.save(draft(KEYS[3]), late_answers.generation()) is None
            yield window

    monkeypatch.setattr(batches, "windows", store_anew_in_between)
    assert llmcache.invalidate(everything=True).entries == 7
    assert served() == {3}


def test_what_is_stored_while_it_runs_is_not_chased(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would never end if others stored faster than it removes."""
    monkeypatch.setattr(batches, "WINDOW_ROWS", 2)
    fill()
    new = iter(f"{number:064x}" for number in range(100, 200))
    delete = durable.delete

    def store_one_more(*args: Any) -> int:
        deleted = delete(*args)
        placement.later(lambda: store.save(draft(next(new)), late_answers.generation()))
        return deleted

    monkeypatch.setattr(durable, "delete", store_one_more)
    assert llmcache.invalidate(everything=True).entries == 8
    # (before the next test has its own)
    assert all(workers.drain(30) for workers in placement.ALL)


def test_a_batch_that_fails_does_not_undo_the_ones_before(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 3)
    fill()
    delete, batches = durable.delete, []

    def fail_at_the_second(*args: Any) -> int:
        batches.append(args)
        if len(batches) == 2:
            raise ConnectionError("the second batch")
        return delete(*args)

    monkeypatch.setattr(durable, "delete", fail_at_the_second)
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending, result.pending_until) == (3, ("durable",), None)
    row = Invalidation.objects.using(database).get()
    assert (row.entries, row.pending) == (3, "durable")
    assert len(served()) == 5


def test_by_many_keys(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "KEYS_PER_QUERY", 3)
    fill()
    absent = [f"{number:064x}" for number in range(1000, 1010)]
    assert llmcache.invalidate(keys=[*KEYS[:7], *absent]).entries == 7
    assert served() == {7}


def test_many_entries(database: str) -> None:
    """Some batches, windows and tags: each entry once, and no other."""
    fill()
    scale.fill(database, 4000, first=1000, expires=60, namespace="scale", tag="some")
    scale.fill(database, 2000, first=10_000, expires=60, namespace="other", tag="some")
    result = llmcache.invalidate(tags=["some"], namespace="scale")
    assert (result.entries, result.pending) == (4000, ())
    assert durable.entries().count() == 2008
    assert EntryTag.objects.using(database).count() == 2000
    assert llmcache.invalidate(everything=True).entries == 2008
    assert durable.entries().count() == EntryTag.objects.using(database).count() == 0
