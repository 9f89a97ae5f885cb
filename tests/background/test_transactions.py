"""The caller's transaction: never joined, never broken, and not waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import Client, TestCase
from django.urls import path

import llmcache
from llmcache.background import database as placement
from llmcache.background import transactions
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import Backend, Undo, backend_parameters, without_table
from tests.support.clients import CALL, make_client
from tests.support.waiting import wait_until


def test_a_rollback_of_the_caller_keeps_the_answer(model: StandIn, database: str) -> None:
    client = make_client(model)
    with suppress(Undo), transaction.atomic(using=database):
        client.create(**CALL)
        raise Undo
    wait_until(durable.entries().exists)
    client.create(**CALL)
    assert len(model.calls) == 1


def order(request: HttpRequest) -> JsonResponse:
    """A view that writes, asks the model, and fails when it is called for the first time."""
    using, client = request.META["test.database"], request.META["test.client"]
    Group.objects.using(using).create(name="an order")
    ticket = client.create(**CALL)
    if request.META["test.fails"]:
        raise Undo
    return JsonResponse({"title": ticket.title})


urlpatterns = [path("order", order)]


def test_a_view_that_fails_after_the_model_answered(
    model: StandIn, database: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``ATOMIC_REQUESTS``: what it wrote is rolled back, and the retry need not pay again."""
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(connections.settings[database], "ATOMIC_REQUESTS", True)
    browser: Any = Client(raise_request_exception=False)
    facts = {"test.database": database, "test.client": make_client(model)}
    assert browser.get("/order", **facts, **{"test.fails": True}).status_code == 500
    assert not Group.objects.using(database).exists()
    wait_until(durable.entries().exists)
    retry = browser.get("/order", **facts, **{"test.fails": False})
    assert retry.status_code == 200
    assert retry.json()["title"]
    assert Group.objects.using(database).count() == 1
    assert len(model.calls) == 1


def test_a_hit_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database), llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].outcome == "hit"


def test_trouble_inside_a_transaction_does_not_abort_it(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL, seed=1)  # (statements are put together once, with the table's name)
    with without_table():
        with transaction.atomic(using=database):
            Group.objects.using(database).create(name="mine")
            client.create(**CALL)
            Group.objects.using(database).create(name="mine too")
        drain()
    assert Group.objects.using(database).count() == 2


def drain() -> None:
    """Wait for the work that was put off."""
    assert all(pool.drain(30) for pool in placement.ALL)


def test_many_questions_in_one_transaction(model: StandIn, database: str) -> None:
    """Writes that are put off (SQLite) keep no lookup waiting, and all are kept."""
    client = make_client(model)
    with transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        started = time.perf_counter()
        for number in range(9):
            client.create(**CALL, seed=number)
        seconds = time.perf_counter() - started
    drain()
    assert durable.entries().count() == 9
    # Had one waited for another's lock, it would have been for the 5 seconds of the connection.
    assert seconds < 5


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["database"]), indirect=True)
def test_a_hit_in_a_transaction_does_not_wait_for_its_own_lock(
    model: StandIn, backend: Backend
) -> None:
    client = make_client(model)
    client.create(**CALL)
    caches["database"].clear()
    with transaction.atomic(), llmcache.capture() as calls:
        Group.objects.create(name="the caller is the writer")
        client.create(**CALL)
    assert calls[0].tier == "durable"
    assert calls[0].seconds < 5


@pytest.mark.parametrize("backend", backend_parameters(["postgres"], [None]), indirect=True)
def test_connections_that_the_server_has_closed(
    model: StandIn, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "is_testing", lambda: False)  # else none stays open
    monkeypatch.setattr(placement, "IDLE_SECONDS", 0.0)
    client = make_client(model)
    try:
        client.create(**CALL)
        with connections["postgres"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        with llmcache.capture() as calls:
            client.create(**CALL)
            client.create(**CALL, seed=1)
        assert [(call.outcome, call.stored) for call in calls] == [("hit", False), ("miss", True)]
    finally:
        for workers in placement.ALL:
            workers.pause()  # (the test database could not be dropped)
        for workers in placement.ALL:
            workers.resume()


def test_invalidating_inside_a_transaction(model: StandIn, database: str) -> None:
    client = make_client(model)
    client.create(**CALL)
    with transaction.atomic(using=database):
        result = llmcache.invalidate(everything=True)
    assert result.entries == 1
    # SQLite has one writer, the caller: others see it after the commit.
    assert result.pending == (("durable",) if database == "default" else ())
    assert not durable.entries().exists()


def test_asynchronous_code_inside_a_transaction(model: StandIn, database: str) -> None:
    """The transaction is one of another thread than that of the event loop."""
    create = async_to_sync(make_client(model, async_client=True).create)
    with suppress(Undo), transaction.atomic(using=database), llmcache.capture() as calls:
        Group.objects.using(database).create(name="the caller is the writer")
        create(**CALL)
        raise Undo
    assert (calls[0].stored, calls[0].reason) == (True, "")
    assert calls[0].seconds < placement.WRITE_SECONDS
    wait_until(durable.entries().exists)


@pytest.mark.parametrize("by", ["keys", "tags", "everything"])
def test_invalidating_what_waits_for_the_end_of_the_transaction(
    model: StandIn, database: str, by: str
) -> None:
    """The rollback undoes the invalidation, and the answer is written after all."""
    client = make_client(model)
    criteria: Any = {"keys": [llmcache.key_for(client, **CALL)], "tags": ["t"], "everything": True}
    with suppress(Undo), transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        client.create(**CALL, cache_tags=["t"])
        result = llmcache.invalidate(**{by: criteria[by]})
        raise Undo
    assert all(pool.drain(30) for pool in placement.ALL)
    is_done = "durable" not in result.pending
    assert is_done is not durable.entries().exists()


def test_invalidating_asynchronously_inside_a_transaction(model: StandIn, database: str) -> None:
    make_client(model).create(**CALL)
    ainvalidate = async_to_sync(llmcache.ainvalidate)
    with transaction.atomic(using=database):
        Group.objects.using(database).create(name="the caller is the writer")
        started = time.perf_counter()
        result = ainvalidate(everything=True)
        assert time.perf_counter() - started < 5
    assert result.entries == 1
    assert result.pending == (("durable",) if database == "default" else ())
    assert not durable.entries().exists()


def test_a_busy_thread_keeps_no_coroutine_waiting_for_its_transaction(
    model: StandIn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "is_testing", lambda: False)  # (it would wait for its own)
    monkeypatch.setattr(placement, "_may_stay_open", lambda connection: False)
    done = threading.Event()

    async def main() -> float:
        busy = asyncio.ensure_future(sync_to_async(done.wait)(20))
        await asyncio.sleep(0)
        with llmcache.capture() as calls:
            await make_client(model, async_client=True).create(**CALL)
        done.set()
        await busy
        assert calls[0].stored
        return calls[0].seconds

    assert asyncio.run(main()) < 5


@pytest.mark.django_db
def test_the_transaction_around_a_test_is_not_the_callers(model: StandIn) -> None:
    client = make_client(model)
    with llmcache.capture() as calls:
        client.create(**CALL)
        client.create(**CALL)
        with transaction.atomic():
            client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit", "hit"]
    assert connections["default"].in_atomic_block


class UsersTests(TestCase):
    """Tests as a user writes them; each begins with an empty cache, so the other was undone."""

    def ask_twice(self) -> None:
        with StandIn() as model, llmcache.capture() as calls:
            client = make_client(model)
            client.create(**CALL)
            client.create(**CALL)
        assert [call.outcome for call in calls] == ["miss", "hit"]

    def test_one(self) -> None:
        self.ask_twice()

    def test_another(self) -> None:
        self.ask_twice()

    async def test_asynchronously(self) -> None:
        with StandIn() as model, llmcache.capture() as calls:
            client = make_client(model, async_client=True)
            await client.create(**CALL)
            await client.create(**CALL)
        assert [call.outcome for call in calls] == ["miss", "hit"]
