"""The dashboard: what it says, what it costs, and who may see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmcache.models import Outage, PendingEviction
from llmcache.reasons import ReasonCode
from llmcache.reports import stored
from llmcache.store.rows import tier as durable
from llmcache.usage.rollup import roll_up_usage
from tests.support.admin import DASHBOARD, fill_dashboard, store, text_of
from tests.support.ledger import group, sums, write

pytestmark = pytest.mark.django_db

SCRIPT = "<script>alert(1)</script>"

MOST_QUERIES = 15


def page(client: Client, **query: str) -> Any:
    response = client.get(DASHBOARD, query)
    assert response.status_code == 200
    return response


def test_with_no_data_it_says_what_to_do_first(admin_client: Client) -> None:
    text = text_of(page(admin_client))
    assert "Nothing has been called through llmcache yet" in text
    assert "llmcache.from_provider(" in text
    assert "Schedule it" in text
    assert "Money saved" not in text


def test_with_entries_and_no_calls_there_are_numbers(admin_client: Client) -> None:
    store("entry", cost=7)
    text = text_of(page(admin_client))
    assert "Nothing was called in this time." in text
    assert "Largest entries" in text


def test_it_shows_what_was_saved(admin_client: Client) -> None:
    now = datetime.now(UTC)
    write(
        (group(now), sums(3, cost_saved=2_500_000_000, microseconds_saved=5_000_000)),
        (group(now, outcome="miss", tier="", model=SCRIPT), sums(1, cost_spent=10**9, unpriced=1)),
        (group(now, outcome="bypass", tier="", reason_code=SCRIPT), sums(2)),
        (group(now, outcome="bypass", tier="", reason_code=ReasonCode.NO_TTL), sums(1)),
        (group(now - timedelta(hours=24)), sums(1, cost_saved=1_250_000_000)),
    )
    entry = store("entry", cost=3 * 10**9)
    durable.entries().update(hits=2)
    response = page(admin_client, period="24h")
    text = text_of(response)
    for words in (
        "Hit ratio 75.0 % -25.0 points from 100.0 % 3 of 7 calls came from the store.",
        "Money saved $2.50 +100 % from $1.25 1 call has no price.",
        "Money spent $1.00 before: $0.00",
        "Time saved 5.0 s",
        f"{SCRIPT} 1 0.0 % $0.00 $1.00",
        f"2 {SCRIPT}",
        "1 cache_ttl is 0 The call asks for this.",
        f"{entry} support gpt-4.1-mini 2 $6.00",
        "1 entry, 108 bytes of answers; counted at",
    ):
        assert words in text
    assert SCRIPT not in response.content.decode()


@pytest.mark.parametrize(
    ("query", "current", "steps"),
    [
        ({}, "7d", 28),
        ({"period": "24h"}, "24h", 24),
        ({"period": "30d"}, "30d", 30),
        ({"period": "1y"}, "7d", 28),
    ],
)
def test_periods(admin_client: Client, query: Any, current: str, steps: int) -> None:
    write((group(datetime.now(UTC)), sums(1)))
    response = page(admin_client, **query)
    assert response.context["period"].name == current
    assert f'href="?period={current}" aria-current="page"' in response.content.decode()
    # (of the last day, only the hours that have begun)
    shown = len(response.context["drawings"][0].columns)
    assert shown == steps or (current == "7d" and steps - 4 < shown <= steps)


def test_a_period_of_ones_own(admin_client: Client) -> None:
    today = datetime.now(UTC).date()
    write((group(datetime.now(UTC) - timedelta(days=10)), sums(5)))
    day = str(today - timedelta(days=10))
    response = page(admin_client, first=day, last=day)
    assert response.context["usage"].totals.calls == 5
    assert not any(is_current for _, _, is_current in response.context["periods"])


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-02-30", "", "Enter a valid date."),
        ("", "2026-02-01", "This field is required."),
        ("2026-02-02", "2026-02-01", "The first day is not after the last"),
        ("2999-01-01", "", "The first day is not after the last"),
    ],
)
def test_what_is_no_period_is_said(admin_client: Client, first: str, last: str, words: str) -> None:
    store("entry")
    response = page(admin_client, first=first, last=last)
    assert words in text_of(response)
    assert response.context["period"].name == "7d"


def test_health(admin_client: Client) -> None:
    now = timezone.now()
    write((group(datetime.now(UTC)), sums(1)))
    Outage.objects.create(process="web1:7", tier="hot", since=now, seen_at=now, error="OSError: x")
    PendingEviction.objects.create(keys=["a"], created_at=now, until=now)
    store("expired", age=100, ttl=10)
    roll_up_usage()
    text = text_of(page(admin_client))
    for words in (
        "web1:7 goes without the hot tier since",
        "Something is not well.",
        "1 batch of hot copies is still to be removed",
        "Hot tier (fast copies) : none.",
        "llmcache.expire_entries never – – 1 Schedule it",
        "llmcache.finish_evictions never – – 1 Schedule it",
    ):
        assert words in text
    assert "llmcache.roll_up_usage never" not in text


def test_a_large_store_is_counted_by_a_task(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "COUNTED_AT_ONCE", 0)
    store("entry")
    assert "manage.py llmcache_roll_up" in text_of(page(admin_client))
    roll_up_usage()
    text = text_of(page(admin_client))
    assert "Namespace Entries Size Part of all support 1" in text
    assert "100.0 %" in text


# What it costs, and who may see it


@pytest.mark.parametrize("is_small", [True, False])
def test_it_takes_few_queries(
    client_with: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_small: bool,
) -> None:
    if not is_small:
        monkeypatch.setattr(stored, "COUNTED_AT_ONCE", 0)
    fill_dashboard(days=3)
    roll_up_usage()
    now = timezone.now()
    Outage.objects.create(process="web1:7", tier="hot", since=now, seen_at=now)
    client = client_with("view_dashboard", "view_cacheentry")
    for query in ({"period": "30d"}, {"first": "2026-01-01", "last": "2026-02-01"}):
        with CaptureQueriesContext(connections["default"]) as queries:
            page(client, **query)
        assert len(queries) <= MOST_QUERIES


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        ((), 403),
        (("view_cacheentry", "invalidate_cacheentry", "view_invalidation", "view_outage"), 403),
        (("view_dashboard",), 200),
    ],
)
def test_it_has_a_permission_of_its_own(
    client_with: Any,
    permissions: tuple[str, ...],
    status: int,
) -> None:
    client = client_with(*permissions)
    for query in ({}, {"period": "24h"}, {"first": "2026-01-01", "last": ""}):
        assert client.get(DASHBOARD, query).status_code == status
    assert (DASHBOARD in client.get("/admin/").content.decode()) is (status == 200)


def test_nobody_sees_it_without_logging_in(client: Client) -> None:
    assert client.get(DASHBOARD).status_code == 302


def test_there_is_nothing_but_the_page(admin_client: Client) -> None:
    for address in ("add/", "1/change/", "1/delete/", "1/history/"):
        assert admin_client.get(f"{DASHBOARD}{address}").status_code == 404


def test_links_are_for_those_who_may_follow_them(
    client_with: Any,
    admin_client: Client,
) -> None:
    entry = store("entry", cost=7)
    durable.entries().update(hits=1)
    write((group(datetime.now(UTC)), sums(1)))
    link = f"/admin/llmcache/cacheentry/{entry.pk}/change/"
    assert link in page(admin_client).content.decode()
    assert link not in page(client_with("view_dashboard")).content.decode()
