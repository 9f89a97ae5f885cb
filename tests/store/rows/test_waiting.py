"""On SQLite, an answer waits for the end of the caller's transaction, and is served meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

import llmcache
from llmcache import store
from llmcache.background import database
from llmcache.store.records import Found
from llmcache.store.rows import late_answers, waiting
from project.standin.server import StandIn
from tests.support.backends import hold_the_write_lock
from tests.support.clients import CALL, make_client
from tests.support.entries import KEY, OTHER_KEY, draft
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_waits() -> Any:
    yield
    wait_until(lambda: not waiting.drafts)


def outcomes(client: Any, times: int = 1, **arguments: Any) -> list[str]:
    with llmcache.capture() as calls:
        for _ in range(times):
            client.create(**CALL, **arguments)
    return [str(call.outcome) for call in calls]


def test_who_asks_twice_in_a_transaction_asks_the_model_once(model: StandIn) -> None:
    client = make_client(model)
    with transaction.atomic():
        hold_the_write_lock()
        assert outcomes(client, 2) == ["miss", "hit"]
    assert len(model.calls) == 1


def test_who_asks_in_two_transactions_in_a_row_asks_the_model_once(model: StandIn) -> None:
    client = make_client(model)
    seen = []
    for _ in range(2):
        with transaction.atomic():
            hold_the_write_lock()
            seen += outcomes(client)
    assert seen == ["miss", "hit"]


def test_a_rollback_keeps_what_was_paid_for(model: StandIn) -> None:
    client = make_client(model)
    with transaction.atomic():
        hold_the_write_lock()
        outcomes(client)
        transaction.set_rollback(True)
    assert outcomes(client) == ["hit"]
    wait_until(lambda: not waiting.drafts)
    assert outcomes(client) == ["hit"]
    assert len(model.calls) == 1


def test_coroutines_are_served_it_too(model: StandIn) -> None:
    with transaction.atomic():
        hold_the_write_lock()
        store.save(draft(), late_answers.generation())
        found = asyncio.run(store.alookup(KEY))
        many = store.lookup_many([KEY, OTHER_KEY])
    assert isinstance(found, Found)
    assert (isinstance(many[KEY], Found), isinstance(many[OTHER_KEY], Found)) == (True, False)
    assert isinstance(store.peek(KEY), Found)


def test_the_newest_is_served(model: StandIn) -> None:
    store.save(draft(body=b"old"), late_answers.generation())
    with transaction.atomic():
        hold_the_write_lock()
        store.save(draft(body=b"new"), late_answers.generation())
        found = store.lookup(KEY)
    assert isinstance(found, Found)
    assert found.body == b"new"


def test_what_was_invalidated_in_the_same_transaction_is_not_served(model: StandIn) -> None:
    client = make_client(model)
    with transaction.atomic():
        hold_the_write_lock()
        outcomes(client, cache_tags=["doubtful"])
        llmcache.invalidate(tags=["another"])
        assert outcomes(client) == ["hit"]
        llmcache.invalidate(tags=["doubtful"])
        assert outcomes(client) == ["miss"]


def test_what_another_process_has_invalidated_is_not_served(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came between the end of the transaction and the write."""
    monkeypatch.setattr(database, "later", lambda *args, **kwargs: None)
    since = late_answers.generation()
    with transaction.atomic():
        hold_the_write_lock()
        store.save(draft(), since)
        assert isinstance(store.lookup(KEY), Found)
    monkeypatch.setattr(waiting, "forget", lambda criteria: None)  # (that process has its own)
    llmcache.invalidate(keys=[KEY])
    assert not isinstance(store.lookup(KEY), Found)


def test_another_namespace_is_not_served_it(model: StandIn) -> None:
    with transaction.atomic():
        hold_the_write_lock()
        outcomes(make_client(model, namespace="one"))
        assert outcomes(make_client(model, namespace="two")) == ["miss"]


async def test_a_view_in_a_thread_of_asgiref_is_served_it(model: StandIn) -> None:
    client = make_client(model)

    def view() -> list[str]:
        with transaction.atomic():
            hold_the_write_lock()
            return outcomes(client, 2)

    assert await sync_to_async(view)() == ["miss", "hit"]
