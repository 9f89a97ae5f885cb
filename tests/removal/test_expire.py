"""Expiry: the function, the task, the command; on every database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from celery import current_app
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.utils import timezone

import llmcache
from llmcache import signals, store
from llmcache.models import EntryTag, Invalidation, Lease
from llmcache.removal import expire
from llmcache.store import batches
from llmcache.store.rows import tier as durable
from llmcache.tasks import on_celery
from tests.benchmarks import scale
from tests.support.backends import Backend, backend_parameters
from tests.support.entries import draft


def fill(expired: int = 5, fresh: int = 3, for_ever: int = 2) -> None:
    ttls = [-60.0] * expired + [60.0] * fresh + [None] * for_ever
    for number, ttl in enumerate(ttls):
        store.save(draft(f"{number:064x}", ttl=ttl, tags=frozenset({"t"})))


def test_what_has_expired_is_removed_with_its_tags(database: str) -> None:
    fill()
    assert expire.expire_entries() == 5
    assert durable.entries().count() == 5
    assert EntryTag.objects.using(database).count() == 5
    assert expire.expire_entries() == 0


def test_in_batches(database: str) -> None:
    fill()
    assert expire.expire_entries(batch_size=2, max_batches=2) == 4
    assert expire.expire_entries(batch_size=2) == 1
    assert expire.expire_entries(max_batches=0) == 0


def test_each_batch_is_a_short_transaction_of_its_own(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first batches removed stays removed when a later one fails."""
    fill()
    delete, batches = durable.delete, []

    def fail_at_the_third(*args: Any) -> int:
        batches.append(args)
        if len(batches) == 3:
            raise ConnectionError("the third batch")
        return delete(*args)

    monkeypatch.setattr(durable, "delete", fail_at_the_third)
    with pytest.raises(ConnectionError):
        expire.expire_entries(batch_size=2)
    assert durable.entries().expired().count() == 1


def test_a_dry_run_counts_only(database: str) -> None:
    fill()
    assert expire.expire_entries(dry_run=True) == 5
    assert expire.expire_entries(dry_run=True, batch_size=2, max_batches=1) == 2
    assert durable.entries().count() == 10


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": 5001}, {"max_batches": -1}]
)
def test_numbers_out_of_range(arguments: dict[str, Any]) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        expire.expire_entries(**arguments)


def test_the_expiry_is_checked_again_before_the_delete(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is made fresh between the look and the delete stays, with its tags."""
    fill(expired=2, fresh=0, for_ever=0)
    windows = batches.outlived_windows

    def refresh_one_in_between(now: datetime) -> Iterator[list[int]]:
        for window in windows(now):
            later = timezone.now() + timedelta(hours=1)
            durable.entries().filter(key=f"{0:064x}").update(stale_until=later)
            yield window

    monkeypatch.setattr(batches, "outlived_windows", refresh_one_in_between)
    assert expire.expire_entries() == 1
    assert durable.entries().get().key == f"{0:064x}"
    assert EntryTag.objects.using(database).count() == 1


def test_two_runs_at_once(database: str) -> None:
    fill(expired=60)
    removed: list[int] = []

    def run() -> None:
        try:
            removed.append(expire.expire_entries(batch_size=5))
        finally:
            connections[database].close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(removed) == 2
    assert sum(removed) + expire.expire_entries() == 60


@pytest.mark.slow
def test_many_rows(database: str) -> None:
    """Some windows and batches, by two runs at once: each row once, and no fresh one."""
    scale.fill(database, 12_000, first=1000, tag="t")
    scale.fill(database, 1000, first=100_000, expires=60, namespace="fresh", tag="t")
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(expire.expire_entries) for _ in range(2)]
        removed = sum(run.result() for run in runs)
    assert removed + expire.expire_entries() == 12_000
    assert durable.entries().count() == EntryTag.objects.using(database).count() == 1000
    assert set(durable.entries().values_list("namespace", flat=True)) == {"fresh"}


def test_what_may_still_be_served_stale_stays(database: str) -> None:
    now = time.time()
    for number, until in enumerate([now - 1, now + 60, None]):
        store.save(draft(f"{number:064x}", expires=now - 60, stale_until=until))
    assert expire.expire_entries(dry_run=True) == 2
    assert expire.expire_entries() == 2
    assert durable.entries().get().key == f"{1:064x}"


def test_what_else_has_outlived_its_use(database: str) -> None:
    now = timezone.now()
    day = timedelta(days=1)
    for age in (0 * day, 364 * day, 366 * day):
        Invalidation.objects.using(database).create(started_at=now - age, criteria={})
    for number, age in enumerate([-day, 0 * day, day]):
        Lease.objects.using(database).create(key=f"{number:064x}", expires_at=now - age)
    expire.expire_entries()
    assert Invalidation.objects.using(database).count() == 2
    assert [row.key[-1] for row in Lease.objects.using(database).order_by("key")] == ["0", "1"]


def test_a_batch_is_as_large_as_its_time_allows() -> None:
    pace = batches.Pace(most=5000)
    assert pace.rows == 500
    pace.record(500, 0.06)
    assert pace.rows == 250
    pace.record(250, 0.016)
    assert pace.rows == 312
    pace.record(0, 0.001)
    assert pace.rows == 312
    for _ in range(20):
        pace.record(pace.rows, 9.9)
    assert pace.rows == batches.FEWEST_ROWS
    for _ in range(20):
        pace.record(pace.rows, 0.0)
    assert pace.rows == 5000
    assert batches.Pace(most=2).rows == 2


# Not MariaDB: on a small table its DELETE reads, and waits for, rows beside those it was given.
@pytest.mark.parametrize("backend", backend_parameters(["postgres"], [None]), indirect=True)
def test_rows_that_another_run_holds_are_left_to_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And do not count for how many the next batch takes, which would be more and more."""
    noted: list[int] = []
    monkeypatch.setattr(batches.Pace, "record", lambda _, rows, seconds: noted.append(rows))
    fill()
    held = durable.entries().filter(key=f"{0:064x}").select_for_update()
    released, locked = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(using=backend.database):
            assert len(held) == 1
            locked.set()
            released.wait(10)
        connections[backend.database].close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert locked.wait(10)
        assert expire.expire_entries() == 4
    finally:
        released.set()
        holder.join()
    assert expire.expire_entries() == 1
    assert noted == [4, 1]


@pytest.mark.django_db(transaction=True)
def test_the_task_delegates() -> None:
    fill()
    assert "llmcache.expire_entries" in current_app.tasks
    assert on_celery.expire_entries.apply(kwargs={"batch_size": 2, "max_batches": 1}).get() == 2
    assert on_celery.expire_entries.apply().get() == 3


@pytest.mark.django_db(transaction=True)
def test_the_command() -> None:
    def run(*arguments: str) -> str:
        output = StringIO()
        call_command("llmcache_expire", *arguments, stdout=output)
        return output.getvalue().strip()

    fill()
    assert run("--dry-run") == "5 expired entries would be removed."
    assert run("--batch-size", "2", "--max-batches", "2") == "4 expired entries removed."
    assert run() == "1 expired entry removed."
    with pytest.raises(CommandError, match="batch_size"):
        run("--batch-size", "0")


@pytest.mark.django_db
def test_it_is_signalled() -> None:
    heard: list[int] = []

    def listen(sender: object, entries: int, **kwargs: Any) -> None:
        heard.append(entries)

    signals.entries_expired.connect(listen)
    try:
        fill()
        expire.expire_entries()
        expire.expire_entries()
    finally:
        signals.entries_expired.disconnect(listen)
    assert heard == [5]
