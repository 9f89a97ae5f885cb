"""Hits are counted without a lock, and written for many entries at once, behind the callers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmcache.background import database as placement
from llmcache.background import transactions
from llmcache.models import HitDay
from llmcache.store.rows import tier as durable
from llmcache.usage import buffer, hits, rollup
from tests.support.entries import draft
from tests.support.forks import in_a_fork
from tests.support.waiting import wait_until

SOON = 15.0

KEYS = [f"{number:064x}" for number in range(600)]


def store(keys: list[str]) -> None:
    rows = [durable.row_of(transactions.database_alias(), draft(key)) for key in keys]
    durable.entries().bulk_create(rows)


def stored_hits() -> dict[str, int]:
    return dict(durable.entries().values_list("key", "hits"))


def unquoted(sql: str) -> str:
    return sql.replace('"', "").replace("`", "")


def test_many_entries_are_written_at_once(database: str) -> None:
    store(KEYS)
    before = timezone.now()
    for number, key in enumerate(KEYS):
        for _ in range(number % 3):
            hits.count(key)
    with CaptureQueriesContext(connections[transactions.database_alias()]) as queries:
        transactions.this_thread.is_worker = True  # so that the queries are made on this thread
        try:
            hits.flush()
        finally:
            transactions.this_thread.is_worker = False
    most = {"postgres": 1, "mariadb": 2, "default": 3}[database]
    updates = [query for query in queries if "UPDATE llmcache_cacheentry" in unquoted(query["sql"])]
    assert 1 <= len(updates) <= most
    assert stored_hits() == {key: number % 3 for number, key in enumerate(KEYS)}
    last: Any = durable.entries().get(key=KEYS[1]).last_hit_at
    assert before - timedelta(seconds=1) <= last <= timezone.now()
    assert durable.entries().get(key=KEYS[0]).last_hit_at is None


def test_what_was_served_is_added_to_what_others_have_counted(database: str) -> None:
    store(KEYS[:2])
    for _ in range(2):
        hits.count(KEYS[0])
        hits.count("f" * 64)  # no row has it any more
        hits.flush()
    assert stored_hits() == {KEYS[0]: 2, KEYS[1]: 0}


def days_of(key: str) -> list[int]:
    """The hits of the last days, today's at the end."""
    return [*hits.of_days(durable.entries().get(key=key).pk).values()]


def test_they_are_counted_by_day(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store(KEYS)
    today = hits.today()
    for ago in (1, 0, 0):
        monkeypatch.setattr(hits, "today", lambda ago=ago: today - timedelta(days=ago))
        for number, key in enumerate(KEYS):
            for _ in range(number % 3):
                hits.count(key)
        hits.count("f" * 64)  # no row has it any more
        hits.flush()
    assert days_of(KEYS[0]) == [0] * hits.DAYS
    assert days_of(KEYS[1]) == [0] * (hits.DAYS - 2) + [1, 2]
    assert days_of(KEYS[599]) == days_of(KEYS[2]) == [0] * (hits.DAYS - 2) + [2, 4]
    assert rows_of_days() == 2 * 400


def rows_of_days() -> int:
    return int(HitDay.objects.using(transactions.database_alias()).count())


def test_days_that_no_page_shows_are_forgotten(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hits, "BATCH_ROWS", 2)
    store(KEYS[:3])
    today = hits.today()
    for ago in (hits.DAYS + 1, hits.DAYS, hits.DAYS - 1, 0):
        with monkeypatch.context() as patch:
            patch.setattr(hits, "today", lambda ago=ago: today - timedelta(days=ago))
            for key in KEYS[:3]:
                hits.count(key)
            hits.flush()
    assert rows_of_days() == 12
    rollup.roll_up_usage()
    assert rows_of_days() == 9  # (that of the 31st day: the pages' days may be behind)
    assert days_of(KEYS[0]) == [1] + [0] * (hits.DAYS - 2) + [1]


def test_who_write_the_same_entries_do_not_wait_for_each_other(database: str) -> None:
    store(KEYS[:100])
    upwards = dict.fromkeys(KEYS[:100], 1)
    downwards = dict(reversed(upwards.items()))

    def write(counts: Any) -> None:
        for _ in range(10):
            placement.run(lambda: hits._add(counts), patience=None, writing=True)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, [upwards, downwards]))
    assert set(stored_hits().values()) == {20}


@pytest.mark.django_db(transaction=True)
def test_no_hit_is_lost_between_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "may_put_off", lambda: True)
    monkeypatch.setattr(buffer, "FLUSH_SECONDS", 0.01)
    store(KEYS[:5])

    def count(_: int) -> None:
        for number in range(500):
            hits.count(KEYS[number % 5])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))
    hits.flush()
    wait_until(lambda: set(stored_hits().values()) == {800})


def have_been_served(times: int) -> bool:
    return stored_hits() == {KEYS[0]: times}


@pytest.mark.django_db(transaction=True)
def test_they_are_written_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    store(KEYS[:1])
    monkeypatch.setattr(placement, "may_put_off", lambda: True)
    monkeypatch.setattr(buffer, "FLUSH_SECONDS", 0.05)
    for expected in (4, 8):
        threads = set[int]()
        work = hits._add

        def write(counts: Any, threads: set[int] = threads, work: Any = work) -> None:
            threads.add(threading.get_ident())
            work(counts)

        monkeypatch.setattr(hits, "_add", write)
        for _ in range(4):
            hits.count(KEYS[0])
        wait_until(partial(have_been_served, expected))
        assert threading.get_ident() not in threads
        monkeypatch.setattr(hits, "_add", work)


def test_no_more_are_held_than_the_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # (an earlier test may have left a thread that writes in a moment)
    monkeypatch.setattr(hits._flusher, "flush", lambda: True)
    for _ in range(hits.MOST_HELD + 10):
        hits.count(KEYS[0])
    assert hits._take()[KEYS[0]] == hits.MOST_HELD


def test_a_forked_child_counts_its_own() -> None:
    hits.count(KEYS[0])

    def count_another() -> list[Any]:
        hits.count(KEYS[1])
        return [*hits._take()]

    assert in_a_fork(count_another) == [KEYS[1]]
    assert [*hits._take()] == [KEYS[0]]
