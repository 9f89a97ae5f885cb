"""Invalidations in instalments: on every database, by one after the other, and by two at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from llmcache import signals, store
from llmcache.background.transactions import database_alias
from llmcache.models import Invalidation, PendingEviction
from llmcache.reasons import ReasonCode
from llmcache.removal import audit, engine, invalidate, resumable
from llmcache.removal.criteria import Criteria
from llmcache.removal.resumable import carry_on, carry_to_its_end
from llmcache.store import batches, evictions
from llmcache.store.hot import tier as hot
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.support.backends import Backend, backend_parameters, places
from tests.support.entries import draft
from tests.support.removal import KEYS, fill, served

ALL = Criteria()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_ROWS", 3)
    monkeypatch.setattr(resumable, "PAUSE_SECONDS", 0.01)


def the_row() -> Any:
    return Invalidation.objects.using(database_alias()).get()


def facts() -> tuple[int, bool, str]:
    row = the_row()
    return row.entries, row.finished_at is not None, row.pending


@places
def test_it_is_carried_on_until_it_is_done(backend: Backend) -> None:
    fill(namespace={0: "other"})
    served()
    pk = resumable.start(Criteria(namespace="tests"), "jo")
    assert (the_row().total, facts()) == (7, (0, False, ""))
    for removed in (3, 6, 7):
        assert carry_on(pk, seconds=0) == ""
        assert facts() == (removed, False, "")
    carry_on(pk, seconds=0)
    assert facts() == (7, True, "")
    assert the_row().by == "jo"
    assert served() == {0}
    carry_on(pk)
    assert facts() == (7, True, "")


@places
def test_at_one_go(backend: Backend) -> None:
    fill()
    pk = resumable.start(ALL, "")
    assert carry_to_its_end(pk) == ""
    assert facts() == (8, True, "")
    assert served() == set()


@pytest.mark.parametrize(
    "criteria",
    [
        Criteria(),
        Criteria(tags=frozenset({"a"}), namespace="tests"),
        Criteria(model="m", response_model="shop.Ticket", text="late refund"),
        Criteria(before=timezone.now()),
    ],
)
def test_criteria_come_back_from_what_is_written_down(criteria: Criteria) -> None:
    assert Criteria.of(criteria.described()) == criteria


@pytest.mark.django_db
def test_what_was_asked_before_and_comes_meanwhile_is_not_stored() -> None:
    since = late_answers.generation()
    fill()
    pk = resumable.start(ALL, "")
    carry_on(pk, seconds=0)
    assert store.save(draft(KEYS[0]), since) == ReasonCode.INVALIDATED()
    assert store.save(draft("f" * 64), late_answers.generation()) is None
    carry_on(pk)
    assert facts() == (8, True, "")
    assert durable.entries().get().key == "f" * 64


@pytest.mark.django_db
class TestCarriers:
    def test_another_one_is_left_alone(self) -> None:
        fill()
        pk = resumable.start(ALL, "")
        token = resumable.claim(pk, as_worker=False)
        assert token is not None
        carry_on(pk)
        carry_on(pk, as_worker=True)
        assert facts() == (0, False, "")
        resumable.release(pk, token)
        carry_on(pk)
        assert facts() == (8, True, "")

    def test_one_that_is_gone_is_taken_over_from(self) -> None:
        fill()
        pk = resumable.start(ALL, "")
        resumable.claim(pk, as_worker=False)
        Invalidation.objects.update(carried_until=timezone.now() - timedelta(seconds=1))
        carry_on(pk)
        assert facts() == (8, True, "")

    def test_a_worker_that_was_told_is_waited_for(self) -> None:
        fill()
        pk = resumable.start(ALL, "")
        resumable.reserve(pk)
        carry_on(pk)
        assert facts() == (0, False, "")
        carry_on(pk, as_worker=True)
        assert facts() == (8, True, "")

    def test_a_worker_that_does_not_come_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resumable, "RESERVATION", timedelta())
        fill()
        pk = resumable.start(ALL, "")
        resumable.reserve(pk)
        carry_on(pk)
        assert facts() == (8, True, "")

    def test_who_was_taken_over_from_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill()
        pk = resumable.start(ALL, "")
        remove = batches.remove

        def lose_the_claim(*args: Any) -> Iterator[Any]:
            Invalidation.objects.update(carrier="another")
            yield from remove(*args)

        monkeypatch.setattr(batches, "remove", lose_the_claim)
        carry_on(pk)
        assert facts() == (3, False, "")
        assert the_row().carrier == "another"


def test_two_at_once(database: str) -> None:
    """Each believes the other one gone: nothing is removed twice, counted twice, or left."""
    fill()
    pk = resumable.start(ALL, "")
    claim = resumable.claim
    barrier = threading.Barrier(2, timeout=20)

    def claim_from_the_other(pk: int, *, as_worker: bool) -> str | None:
        invalidations = Invalidation.objects.using(database)
        barrier.wait()
        invalidations.filter(pk=pk).update(carrier="")
        return claim(pk, as_worker=as_worker)

    def carry() -> None:
        carry_on(pk)
        connections.close_all()

    resumable.claim = claim_from_the_other
    try:
        threads = [threading.Thread(target=carry) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        resumable.claim = claim
    carry_on(pk)
    assert facts() == (8, True, "")
    assert served() == set()


HOT_IN_A_TABLE = backend_parameters(["default"], ["database"])


@pytest.mark.parametrize("backend", HOT_IN_A_TABLE, indirect=True)
class TestHotCopies:
    def test_of_one_who_was_killed_go_before_it_is_done(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill()
        pk = resumable.start(ALL, "")
        with monkeypatch.context() as patch:
            patch.setattr(evictions, "evict", lambda *_: True)
            carry_on(pk, seconds=0)
        assert len(PendingEviction.objects.get().keys) == 3
        carry_on(pk)
        assert facts() == (8, True, "")
        assert served() == set()
        assert not PendingEviction.objects.exists()

    def test_that_cannot_be_removed_are_pending(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill()
        pk = resumable.start(ALL, "")

        def fail(*_: Any) -> None:
            raise ConnectionError("down")

        with monkeypatch.context() as patch:
            patch.setattr(hot, "delete", fail)
            patch.setattr(evictions, "finish_in_background", lambda: None)
            carry_on(pk)
        assert facts() == (8, True, "hot")


@pytest.mark.django_db
def test_trouble_is_told_and_it_can_be_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    pk = resumable.start(ALL, "")

    def fail(*_: Any) -> int:
        raise ConnectionError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "delete", fail)
        assert "ConnectionError" in carry_on(pk)
        assert "ConnectionError" in carry_to_its_end(pk)
    assert facts() == (0, False, "")
    assert carry_to_its_end(pk) == ""
    assert facts() == (8, True, "")


@pytest.mark.django_db
def test_it_is_signalled_once_when_it_is_done() -> None:
    heard: list[tuple[Any, int]] = []

    def listen(sender: object, criteria: Any, entries: int, **kwargs: Any) -> None:
        heard.append((criteria.namespace, entries))

    signals.entries_invalidated.connect(listen)
    try:
        fill(namespace={1: "n"})
        pk = resumable.start(Criteria(namespace="n"), "")
        for _ in range(3):
            carry_on(pk, seconds=0)
    finally:
        signals.entries_invalidated.disconnect(listen)
    assert heard == [("n", 1)]


@pytest.mark.django_db
def test_those_that_are_not_done_in_instalments_are_left_alone() -> None:
    fill()
    begun = audit.start({"everything": True}, "")
    assert carry_to_its_end(begun) == carry_to_its_end(12345) == ""
    assert facts() == (0, False, "")
    assert invalidate.count_entries(ALL) == 8
