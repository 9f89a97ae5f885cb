"""``manage.py llmcache_stats`` and ``llmcache_roll_up``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F

from llmcache.models import UsageHour
from llmcache.reasons import ReasonCode
from llmcache.store.rows import tier as durable
from tests.support.ledger import group, save, sums, write

pytestmark = pytest.mark.django_db(transaction=True)


def stats(*arguments: str) -> str:
    output = StringIO()
    call_command("llmcache_stats", *arguments, stdout=output)
    return output.getvalue()


def told(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stats("--format", "json", *arguments))
    return found


@pytest.fixture
def calls(database: str) -> None:
    now = datetime.now(UTC)
    write(
        (group(now), sums(3, cost_saved=2_500_000_000, microseconds_saved=90_000_000)),
        (group(now, outcome="miss", tier=""), sums(1, cost_spent=1, unpriced=1)),
        (group(now, outcome="bypass", tier="", reason_code=ReasonCode.NO_CANONICAL_FORM), sums(2)),
        (group(now - timedelta(days=7)), sums(1, cost_saved=5)),
    )
    save(1, cost=7)
    durable.entries().update(hits=F("hits") + 2)


def test_it_tells_programs(calls: None) -> None:
    found = told("--period", "7d")
    assert found["totals"]["outcomes"]["hit"] == 3
    assert found["totals"]["hit_ratio"] == 0.75
    assert found["totals"]["cost_saved"] == "2.5"
    assert found["totals"]["cost_spent"] == "0.000000001"
    assert found["totals"]["unpriced_calls"] == 1
    assert found["before"]["calls"] == 1
    assert sum(step["calls"] for step in found["steps"]) == 6
    assert [line["name"] for line in found["namespaces"]] == ["support"]
    [reason] = found["bypasses"]
    assert (reason["calls"], reason["reason_code"]) == (2, "no-canonical-form")
    assert "canonical form" in reason["remedy"]
    [entry] = found["stored"]["most_valuable"]
    assert (entry["hits"], entry["saved"]) == (2, "0.000000014")
    assert found["stored"]["namespaces"][0]["entries"] == 1


def test_it_tells_people(calls: None) -> None:
    text = stats()
    for words in ("$2.50", "75.0 %", "1 min 30 s", "$0.000000014", "form: ‹part›: ‹why›. Give"):
        assert words in text


def test_it_tells_that_there_is_nothing(database: str) -> None:
    text = stats("--period", "24h")
    assert "by namespace\n  none\n" in text
    assert "–" in text


def test_a_time_of_ones_own(calls: None) -> None:
    today = datetime.now(UTC).date()
    first = today - timedelta(days=7)
    assert told("--from", str(first), "--to", str(first))["totals"]["calls"] == 1
    assert told("--from", str(first))["totals"]["calls"] == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "yesterday"),
        ("--from", "2999-01-01"),
        ("--to", "2026-01-01"),
        ("--top", "0"),
        ("--period", "1h"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        stats(*arguments)


def test_rolling_up(database: str) -> None:
    write((group(datetime.now(UTC) - timedelta(days=50)), sums(3)))
    output = StringIO()
    call_command("llmcache_roll_up", stdout=output)
    assert output.getvalue() == "1 rows of hours became part of a day.\n"
    assert UsageHour.objects.using(database).get().hours == 24
