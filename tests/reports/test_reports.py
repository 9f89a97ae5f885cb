"""The ledger, read for a period and added up into days; what is stored, and how all that is."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connections
from django.db.models import F, Sum
from django.test.utils import CaptureQueriesContext

from llmcache.exceptions import InvalidArgument
from llmcache.models import NamespaceSize, TaskRun, UsageHour
from llmcache.outcomes import Tier
from llmcache.reasons import ReasonCode
from llmcache.reports import formatting, stored
from llmcache.reports.health import Health
from llmcache.reports.periods import DAY, HOUR, read_period
from llmcache.reports.stored import Stored
from llmcache.reports.usage import Totals, Usage
from llmcache.store.rows import tier as durable
from llmcache.usage import ledger, rollup, task_runs
from llmcache.usage.ledger import SUMS, Group
from llmcache.usage.rollup import roll_up_usage
from tests.support.backends import unreachable
from tests.support.ledger import group, save, sums, write

transactional = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


def told(rows: list[tuple[Group, list[int]]]) -> None:
    """`write` as the ledger does behind its callers, which meets deadlocks."""
    assert ledger._is_written(dict(rows))


def everything(alias: str) -> dict[str, int]:
    totals = UsageHour.objects.using(alias).aggregate(**{name: Sum(F(name)) for name in SUMS})
    return {name: int(total or 0) for name, total in totals.items()}


# Periods


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "start", "end", "before", "step"),
    [
        (("24h",), "2026-11-19 13:00", "2026-11-20 13:00", "2026-11-18 13:00", HOUR),
        (("7d",), "2026-11-14", "2026-11-20 13:00", "2026-11-07", 6 * HOUR),
        (("30d",), "2026-10-22", "2026-11-20 13:00", "2026-09-22", DAY),
        (
            ("7d", date(2026, 11, 19), date(2026, 11, 19)),
            "2026-11-19",
            "2026-11-20",
            "2026-11-18",
            HOUR,
        ),
        (("", date(2026, 11, 20)), "2026-11-20", "2026-11-20 13:00", "2026-11-19", HOUR),
        # What is long ago may be known by days only.
        (("", date(2026, 1, 1), date(2026, 1, 1)), "2026-01-01", "2026-01-02", "2025-12-31", DAY),
        (("", date(2025, 11, 21)), "2025-11-21", "2026-11-20 13:00", "2024-11-21", 7 * DAY),
    ],
)
def test_periods(arguments: Any, start: str, end: str, before: str, step: timedelta) -> None:
    period = read_period(*arguments, now=NOON)
    assert (period.start, period.end, period.before) == (at(start), at(end), at(before))
    assert period.step == step
    assert period.before_end - period.before == period.end - period.start
    steps = list(period.steps)
    assert steps[0] == period.start
    assert steps[-1] < period.end <= steps[-1] + step
    assert 1 <= len(steps) <= 60


@pytest.mark.parametrize(
    "arguments",
    [
        ("1h",),
        ("",),
        ("24h", None, date(2026, 1, 1)),
        ("24h", date(2026, 1, 2), date(2026, 1, 1)),
        ("24h", date(2026, 11, 21)),
        ("24h", date(2001, 1, 1)),
        ("24h", date(1, 1, 1), date(9999, 12, 31)),
    ],
)
def test_what_is_no_period(arguments: Any) -> None:
    with pytest.raises(InvalidArgument, match="a period"):
        read_period(*arguments, now=NOON)


# Usage


def test_usage_of_a_day(database: str) -> None:
    period = read_period("24h", now=NOON)
    last = period.end - HOUR
    miss = {"outcome": "miss", "tier": ""}
    write(
        (group(last), sums(6, cost_saved=600, microseconds_saved=3_000_000)),
        (group(last, tier="durable", namespace="other"), sums(1, cost_saved=1)),
        (group(last, outcome="stale", reason_code=ReasonCode.PROVIDER_FAILED), sums(1, unpriced=1)),
        (group(period.start, **miss), sums(2, stored=2, cost_spent=50, bytes_stored=99)),
        (group(last, **miss, reason_code=ReasonCode.NO_TTL), sums(2, cost_spent=7)),
        (group(last, outcome="bypass", tier="", reason_code=ReasonCode.NO_STORE), sums(4)),
        (group(last, outcome="reload", tier="", model="o"), sums(1, output_tokens_spent=3)),
        # not of this period
        (group(period.start - HOUR), sums(3, cost_saved=10)),
        (group(period.before, **miss), sums(1)),
        (group(period.before - HOUR), sums(100)),
        (group(period.end), sums(100)),
    )
    with CaptureQueriesContext(connections[database]) as queries:
        usage = Usage.of(period)
    assert len(queries) == 5
    now, before = usage.totals, usage.before
    assert now.outcomes == {"hit": 7, "stale": 1, "miss": 4, "reload": 1, "bypass": 4}
    assert (now.calls, now.served, now.hit_ratio) == (17, 8, 8 / 12)
    assert (now.cost_saved, now.cost_spent, now.unpriced, now.stored) == (601, 57, 1, 2)
    assert now.seconds_saved == 3
    assert (before.calls, before.cost_saved, before.hit_ratio) == (4, 10, 3 / 4)
    assert usage.tiers == {"hot": 7, "durable": 1}
    assert len(usage.steps) == 24
    assert [step.totals.calls for step in usage.steps if step.totals.calls] == [2, 15]
    assert usage.steps[-1].start == last
    assert [(line.name, line.totals.calls) for line in usage.namespaces] == [
        ("support", 16),
        ("other", 1),
    ]
    assert usage.namespaces[0].totals.hit_ratio == 7 / 11
    assert {line.name: line.totals.output_tokens_spent for line in usage.models} == {
        "gpt": 0,
        "o": 3,
    }
    assert [reason.calls for reason in usage.bypasses] == [4]
    assert [reason.words for reason in usage.not_stored] == ["cache_ttl is 0"]
    assert "reload" in usage.bypasses[0].remedy


def test_tables_have_the_lines_that_saved_most(database: str) -> None:
    period = read_period("24h", now=NOON)
    write(
        *[
            (group(period.start, namespace=str(number)), sums(1, cost_saved=number % 7))
            for number in range(20)
        ]
    )
    usage = Usage.of(period, top=3)
    assert [line.name for line in usage.namespaces] == ["13", "6", "12"]
    assert len(usage.models) == 1


def test_nothing_was_called(database: str) -> None:
    usage = Usage.of(read_period("30d", now=NOON))
    assert usage.totals == usage.before == Totals()
    assert usage.totals.hit_ratio is None
    assert (usage.namespaces, usage.reasons, usage.tiers) == ([], [], {})
    assert len(usage.steps) == 30


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("use_tz", [True, False])
@transactional
def test_the_site_s_time_zone_changes_nothing(settings: Any, zone: str, use_tz: bool) -> None:
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    for name in ("24h", "7d", "30d"):
        period = read_period(name, now=NOON)
        UsageHour.objects.all().delete()
        write(
            (group(period.start), sums(1)),
            (group(period.end - HOUR), sums(2)),
            (group(period.start - HOUR), sums(4)),
            (group(period.before), sums(8)),
            (group(period.before - HOUR), sums(16)),
            (group(period.end), sums(32)),
        )
        usage = Usage.of(period)
        assert usage.totals.calls == 3
        # (the day before is cut short as today is, but in the period of 24 hours)
        assert usage.before.calls == (12 if name == "24h" else 8)
        assert (usage.steps[0].totals.calls, usage.steps[-1].totals.calls) == (1, 2)


# Rolling up


def old_rows(number: int) -> list[tuple[Group, list[int]]]:
    dice = random.Random(1)
    begin = datetime.now(UTC) - timedelta(days=40)
    return [
        (
            group(
                begin + timedelta(hours=dice.randrange(100)),
                namespace=dice.choice("aAb"),
                outcome=dice.choice(["hit", "miss"]),
                reason_code=dice.choice(["", "x"]),
            ),
            [dice.randrange(10**9) for _ in SUMS],
        )
        for _ in range(number)
    ]


def by_day(alias: str) -> dict[Any, list[int]]:
    names = ("day", *Group._fields[1:])
    rows = UsageHour.objects.using(alias).values_list(*names)
    added = rows.annotate(**{f"sum_{name}": Sum(name) for name in SUMS}).order_by()
    return {row[: len(names)]: [int(n) for n in row[len(names) :]] for row in added}


def test_old_hours_become_days(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache.usage.rollup.BATCH_ROWS", 50)
    write(*old_rows(300), (group(datetime.now(UTC)), sums(5)))
    rows = UsageHour.objects.using(database)
    before, hours = by_day(database), rows.count()
    assert roll_up_usage() == hours - 1
    assert by_day(database) == before
    assert rows.filter(hours=1).count() == 1
    assert rows.filter(hours=24).count() == len(before) - 1
    assert all(row.hour.hour == 0 for row in rows.filter(hours=24))
    assert roll_up_usage() == 0
    assert by_day(database) == before


def test_what_is_written_to_an_old_hour_later_is_added(database: str) -> None:
    some = old_rows(20)
    for _ in range(3):
        write(*some)
        roll_up_usage()
    assert everything(database) == {
        name: 3 * sum(facts[number] for facts in dict(some).values())
        for number, name in enumerate(SUMS)
    }
    assert not UsageHour.objects.using(database).filter(hours=1).exists()


def test_it_may_be_run_twice_at_once_while_calls_are_counted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache.usage.rollup.BATCH_ROWS", 20)
    some = old_rows(120)
    write(*some)
    with ThreadPoolExecutor(4) as threads:
        work: list[Any] = [roll_up_usage, partial(told, some)] * 2
        for each in [threads.submit(piece) for piece in work]:
            each.result()
    roll_up_usage()
    assert everything(database) == {
        name: 3 * sum(facts[number] for facts in dict(some).values())
        for number, name in enumerate(SUMS)
    }
    connections.close_all()


def test_a_period_of_days_does_not_mind(database: str) -> None:
    today = datetime.now(UTC).date()
    period = read_period("", today - 45 * DAY, today)
    write(*old_rows(100))
    before = Usage.of(period)
    roll_up_usage()
    after = Usage.of(period)
    assert (after.totals, after.steps) == (before.totals, before.steps)


def test_the_hours_that_a_period_needs_are_kept() -> None:
    """A month and the one before it begin with a day, and end within one."""
    for hour in range(24):
        now = datetime.now(UTC).replace(hour=hour)
        period = read_period("30d", now=now)
        kept_from = (now - rollup.HOURS_KEPT).date()
        assert period.before.hour == period.start.hour == 0
        assert period.before_end.date() > kept_from


# What is stored


def test_what_is_worth_most_and_what_is_largest(database: str) -> None:
    for number in range(6):
        save(number, body=b"x" * 100 * number, cost=number or None, namespace="ab"[number % 2])
    durable.entries().update(hits=F("size") - F("size") + 3)
    with CaptureQueriesContext(connections[database]) as queries:
        found = Stored.read(top=2)
    assert len(queries) == 4
    assert [entry.saved for entry in found.most_valuable] == [15, 12]
    sizes = sorted(durable.entries().values_list("size", flat=True))
    assert [entry.size for entry in found.largest] == sizes[:-3:-1]
    assert [(each.name, each.entries) for each in found.namespaces] == [("b", 3), ("a", 3)]
    assert (found.entries, found.size) == (6, sum(sizes))
    assert found.counted_at is not None


def test_a_large_store_is_counted_by_the_task(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "COUNTED_AT_ONCE", 3)
    for number in range(5):
        save(number, namespace="a" if number else "A")
    found = Stored.read()
    assert (found.namespaces, found.counted_at) == ([], None)
    roll_up_usage()
    found = Stored.read(top=1)
    assert [(each.name, each.entries) for each in found.namespaces] == [("a", 4)]
    assert found.entries == 5
    assert found.size == sum(durable.entries().values_list("size", flat=True))
    durable.entries().filter(namespace="a").delete()
    roll_up_usage()
    assert list(NamespaceSize.objects.using(database).values_list("namespace", "entries")) == [
        ("A", 1)
    ]


# Health


def test_health(database: str) -> None:
    save(1, ttl=-60)
    write(*old_rows(3))
    with CaptureQueriesContext(connections[database]) as queries:
        health = Health.read()
    assert len(queries) == 2
    durable_tier, hot_tier = health.tiers
    assert (durable_tier.tier, durable_tier.state, durable_tier.error) == ("durable", "closed", "")
    assert durable_tier.backend.endswith(f"({database})")
    assert (hot_tier.tier, hot_tier.is_configured) == (Tier.HOT, False)
    waiting = {task.task: (task.run, task.backlog) for task in health.tasks}
    rows = UsageHour.objects.using(database).count()
    assert waiting == {
        "expire_entries": (None, 1),
        "finish_evictions": (None, 0),
        "roll_up_usage": (None, rows),
    }
    roll_up_usage()
    task: Any
    [task] = [task for task in Health.read().tasks if task.task == "roll_up_usage"]
    assert (task.run.done, task.run.error, task.backlog) == (rows, "", 0)


def test_of_much_only_so_much_is_counted(database: str) -> None:
    for number in range(5):
        save(number)
    rows = durable.entries()
    assert stored.count_at_most({"all": rows, "none": rows.filter(hits__gt=7)}, 3) == {
        "all": 4,
        "none": 0,
    }


def test_a_database_that_is_down_is_told(database: str) -> None:
    with unreachable(database):
        health = Health.read()
    assert "Error" in health.tiers[0].error
    assert health.tasks == []


@transactional
def test_a_run_that_fails_is_noted() -> None:
    with pytest.raises(ZeroDivisionError), task_runs.recorded("division"):
        _ = 1 / 0
    row = TaskRun.objects.get()
    assert (row.task, row.done) == ("division", 0)
    assert row.error.startswith("ZeroDivisionError in test_a_run_that_fails_is_noted (")
    with task_runs.recorded("division") as run:
        run.done = 3
    row = TaskRun.objects.get()
    assert (row.done, row.error) == (3, "")


# Words


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (38_000, "$0.000038"),
        (99_999_999, "$0.100"),
        (123_456_789, "$0.12"),
        (1_234_567_890_000, "$1,234.57"),
    ],
)
def test_money(cost: int, said: str) -> None:
    assert formatting.money(cost) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (1.26, "1.3 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (1e7, "115 d 17 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert formatting.duration(seconds) == said


def test_other_words() -> None:
    assert [formatting.rough(n) for n in (0, 999, 1000, 12_345, 123_456, 9_990_000_000)] == [
        *("0", "999", "1.0 k", "12.3 k", "123 k", "10.0 bn"),
    ]
    assert formatting.count(1234567) == "1,234,567"
    assert (formatting.part(None), formatting.part(0.12345)) == ("–", "12.3 %")
    assert [formatting.change(now, 10) for now in (10, 12, 5, 300)] == [
        "±0 %",
        "+20 %",
        "-50 %",
        "×30",
    ]
    assert formatting.change(1, 0) == ""
    assert [formatting.points(now, 0.5) for now in (None, 0.5, 0.75)] == [
        "",
        "±0 points",
        "+25.0 points",
    ]
