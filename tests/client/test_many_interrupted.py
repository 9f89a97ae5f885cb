"""`create_many` and `acreate_many`: progress, interruptions, and callers inside of transactions."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from django.db import connection, transaction

import llmcache
from llmcache.store.rows import tier as durable
from tests.support.clients import Scripted
from tests.support.many import AsyncScripted, request

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

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
