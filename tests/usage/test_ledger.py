"""The ledger: every call is counted once, whoever makes it, and with what it saved or cost."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import instructor
import pytest
from celery.signals import worker_process_shutdown
from django.db.models import F, Sum

import llmcache
from llmcache.background import transactions
from llmcache.models import UsageHour
from llmcache.outcomes import Call, Outcome, Receipt, Tier
from llmcache.reasons import ReasonCode
from llmcache.store.rows import tier as durable
from llmcache.usage import buffer, hits, ledger
from llmcache.usage.ledger import SUMS
from project.standin.server import StandIn
from tests.faults.extent import extent
from tests.support import child
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters, unreachable
from tests.support.clients import CALL, CLOSE, make_adapted_client, make_client, make_plain_client
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

capture: Any = llmcache.capture  # (most receipts below have a cost, and None has none)
PRICED = Receipt(100, 10, 5000, 2_000_000)
KINDS = [
    Call(Outcome.HIT, Tier.HOT, receipt=PRICED.pack(), seconds=0.5),
    Call(Outcome.HIT, Tier.DURABLE, receipt=Receipt(7).pack()),
    Call(Outcome.STALE, Tier.DURABLE, reason_code=ReasonCode.PROVIDER_FAILED),
    Call(Outcome.MISS, stored=True, size=700, spent=PRICED),
    Call(Outcome.MISS, reason_code=ReasonCode.RAISED),
    Call(Outcome.RELOAD, stored=True, size=800, spent=Receipt(1, 1, None)),
    Call(Outcome.BYPASS, reason_code=ReasonCode.NO_CANONICAL_FORM, spent=PRICED),
]


def rows(alias: str = "default") -> Any:
    return UsageHour.objects.using(alias)


def sums(alias: str = "default") -> dict[str, int]:
    """All that is in the ledger, but for what is 0."""
    totals = rows(alias).aggregate(**{name: Sum(F(name)) for name in SUMS})
    return {name: int(total) for name, total in totals.items() if total}


def told(*calls: Call, at: float = 0.0) -> None:
    ledger.flusher.wake()
    ledger._told.extend((at, call) for call in calls)
    ledger.flush()


def test_the_columns_of_each_kind_of_call(database: str) -> None:
    told(*KINDS)
    found = {}
    for row in rows(database):
        facts = [getattr(row, name) for name in SUMS]
        found[row.outcome, row.tier, row.reason_code] = dict(zip(SUMS, facts, strict=True))
    expected: dict[Any, dict[str, int]] = {
        ("hit", "hot", ""): {
            "input_tokens_saved": 100,
            "output_tokens_saved": 10,
            "cost_saved": 5000,
            "microseconds_saved": 1_500_000,  # less what the call itself took
        },
        ("hit", "durable", ""): {"input_tokens_saved": 7, "unpriced": 1},
        ("stale", "durable", "provider-failed"): {"unpriced": 1},
        ("miss", "", ""): {
            "stored": 1,
            "bytes_stored": 700,
            "input_tokens_spent": 100,
            "output_tokens_spent": 10,
            "cost_spent": 5000,
        },
        ("miss", "", "raised"): {},
        ("reload", "", ""): {
            "stored": 1,
            "bytes_stored": 800,
            "input_tokens_spent": 1,
            "output_tokens_spent": 1,
            "unpriced": 1,
        },
        ("bypass", "", "no-canonical-form"): {
            "input_tokens_spent": 100,
            "output_tokens_spent": 10,
            "cost_spent": 5000,
        },
    }
    nothing = dict.fromkeys(SUMS, 0)
    assert found == {kind: nothing | {"calls": 1} | facts for kind, facts in expected.items()}


def test_what_is_written_later_is_added(database: str) -> None:
    for times in (1, 2, 3):
        told(*KINDS * times)
    assert rows(database).count() == len(KINDS)
    assert sums(database)["calls"] == 6 * len(KINDS)
    assert sums(database)["cost_saved"] == 6 * 5000


def test_names_are_told_apart_to_the_letter_and_cut_to_size(database: str) -> None:
    names = ["Acme", "acme", "acme ", "ácme", "a\0b", "\ud800", "x" * 300, "x" * 301]
    told(*[Call(namespace=name, model=name, response_model=name) for name in names])
    assert sums(database)["calls"] == len(names)
    assert rows(database).count() == len(names) - 1
    assert rows(database).get(namespace="acme").calls == 1


def test_a_row_tells_its_hour_and_its_day_in_utc(database: str, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Kolkata"
    moment = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    told(Call(), at=moment.timestamp())
    row = rows(database).get()
    assert row.hour == datetime(2026, 3, 1, 23, tzinfo=UTC)
    assert (row.day.isoformat(), row.hours) == ("2026-03-01", 1)


# Calls of clients


def test_a_client_s_calls(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "PRICES": {"gpt-4.1-mini": {"input": 1, "output": 10}}}
    client = make_client(model, namespace="support")
    with capture() as calls:
        client.create(**CALL)
        client.create(**CALL)
        client.create(**CALL, cache_mode="reload")
        client.create(**CALL, cache_mode="no-store")
    miss, hit, reload, bypass = calls
    entry: Any = durable.entries().get()
    cost = entry.input_tokens * 1000 + entry.output_tokens * 10_000
    assert entry.cost == cost > 0
    assert [call.spent.cost for call in (miss, reload, bypass)] == [cost] * 3
    assert hit.spent is None
    assert (hit.saved.cost, hit.saved.output_tokens) == (cost, entry.output_tokens)
    assert miss.saved is None
    assert abs(entry.latency - reload.spent.microseconds / 1e6) < 1e-6
    ledger.flush()
    assert sums()["cost_spent"] == 3 * cost
    assert sums()["cost_saved"] == cost
    assert sums()["bytes_stored"] == miss.size + reload.size
    identities = rows().values_list("namespace", "provider", "model", "response_model").distinct()
    assert list(identities) == [
        ("support", "openai", "gpt-4.1-mini", "tests.support.ticket.Ticket")
    ]


def test_a_coroutine_s_calls(model: StandIn) -> None:
    client = make_client(model, async_client=True)

    async def main() -> None:
        await client.create(**CALL)
        await client.create(**CALL)

    asyncio.run(main())
    ledger.flush()
    assert sums()["calls"] == 2
    assert sums()["cost_saved"] == sums()["cost_spent"] > 0


def test_streams(model: StandIn) -> None:
    client = make_client(model)
    question = CALL | {"stream_options": {"include_usage": True}}
    with capture() as calls:
        for _ in range(2):
            list(client.create_iterable(**question))
    entry: Any = durable.entries().get()
    assert calls[0].spent == calls[1].saved
    assert entry.cost == calls[0].spent.cost > 0


def test_streams_of_anthropic(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "PRICES": {"claude": {"input": 1, "output": 10}}}
    sdk = anthropic.Anthropic(api_key="k", base_url=model.root, default_headers=CLOSE)
    client = llmcache.wrap(instructor.from_anthropic(sdk), model="claude")
    with capture() as calls:
        list(client.create_iterable(**CALL, max_tokens=999))
    assert calls[0].spent.input_tokens > 1
    assert calls[0].spent.output_tokens > 1
    assert calls[0].spent.cost > 0


def test_entries_know_what_they_saved(model: StandIn) -> None:
    client = make_client(model)
    for _ in range(4):
        client.create(**CALL)
    hits.flush()
    entry: Any = durable.entries().get()
    assert entry.saved == 3 * entry.cost > 0
    client.create(**CALL, cache_mode="reload")
    assert durable.entries().get().saved == 0


def test_what_many_share_is_saved(model: StandIn) -> None:
    results = llmcache.create_many(make_client(model), [CALL] * 3)
    ledger.flush()
    spent: Any = results[0].call.spent
    assert spent.cost > 0
    assert sums()["cost_spent"] == spent.cost
    assert sums()["cost_saved"] == 2 * spent.cost


def test_an_error_of_the_model_is_a_miss_that_cost_nothing(model: StandIn) -> None:
    client = make_client(model, base_url="http://127.0.0.1:1/v1", max_retries=0)
    with pytest.raises(Exception, match="onnection"):
        client.create(**CALL)
    ledger.flush()
    assert sums() == {"calls": 1}
    assert rows().get().reason_code == ReasonCode.RAISED


def test_instructor_s_own_cache(model: StandIn) -> None:
    client = make_adapted_client(model, llmcache.DjangoCache(namespace="adapted"))
    for _ in range(3):
        client.create(**CALL)
    ledger.flush()
    entry: Any = durable.entries().get()
    assert entry.cost > 0
    assert sums()["cost_spent"] == entry.cost
    assert sums()["cost_saved"] == 2 * entry.cost
    assert Counter(rows().values_list("namespace", "model", "outcome", "calls")) == {
        ("adapted", "gpt-4.1-mini", "miss", 1): 1,
        ("adapted", "gpt-4.1-mini", "hit", 2): 1,
    }


# Calls inside of calls


def test_what_a_call_inside_spent_is_counted_once(model: StandIn) -> None:
    client = make_client(model)

    @llmcache.cached(exclude=["client"])
    def extract(text: str) -> Ticket:
        ticket: Ticket = client.create(**CALL)
        return ticket

    with capture() as calls:
        extract("a")
        extract("a")
        extract("b")
    inner, outer, hit, replayed, last = calls
    cost = inner.spent.cost
    assert [call.outcome for call in calls] == ["miss", "miss", "hit", "hit", "miss"]
    assert (outer.spent.cost, last.spent.cost) == (0, 0)
    # A hit saves what the call inside did cost; where that was replayed, nothing was paid.
    assert hit.saved.cost == replayed.saved.cost == cost > 0
    ledger.flush()
    assert sums()["cost_spent"] == cost
    assert Counter(entry.cost for entry in durable.entries()) == {0: 1, cost: 2}


def test_a_function_that_asks_past_the_cache_spends(model: StandIn) -> None:
    plain = make_plain_client(model, model="gpt-4.1-mini")

    @llmcache.cached(exclude=["plain"])
    async def extract(text: str) -> Ticket:
        ticket: Ticket = plain.create(**CALL)
        return ticket

    with capture() as calls:
        for _ in range(2):
            asyncio.run(extract("a"))
    assert calls[0].spent.cost == calls[1].saved.cost > 0


def test_a_function_that_asks_no_model_has_no_price() -> None:
    @llmcache.cached
    def double(number: int) -> int:
        return 2 * number

    for _ in range(2):
        double(4)
    ledger.flush()
    assert {**sums(), "bytes_stored": 0, "microseconds_saved": 0} == {
        "calls": 2,
        "stored": 1,
        "unpriced": 2,
        "bytes_stored": 0,
        "microseconds_saved": 0,
    }


# Nothing is lost, and nothing waits


def test_threads_may_tell_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_TOLD", 50)
    stop = threading.Event()

    def flush_again_and_again() -> None:
        while not stop.is_set():
            ledger._add_up_if_free()

    def tell() -> None:
        for _ in range(2000):
            ledger.record(Call(Outcome.HIT, Tier.HOT, receipt=PRICED.pack()), 0.0)

    with ThreadPoolExecutor(5) as threads:
        buffer = threads.submit(flush_again_and_again)
        for done in [threads.submit(tell) for _ in range(4)]:
            done.result()
        stop.set()
        buffer.result()
    ledger.flush()
    assert sums()["calls"] == 8000
    assert sums()["cost_saved"] == 8000 * 5000


def test_who_tells_it_while_it_is_held_does_not_wait() -> None:
    """As the garbage collector may, on the thread that holds it."""
    with ledger._lock, ledger.flusher._lock:
        for _ in range(ledger.MOST_TOLD + 1):
            ledger.record(Call(), 0.0)
    ledger.flush()
    assert sums()["calls"] == ledger.MOST_TOLD + 1


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES[1:], [None]), indirect=True)
def test_while_the_database_is_down_the_sums_are_kept(backend: Backend) -> None:
    with unreachable(backend.database):
        told(*KINDS)
        told(*KINDS)
    for _ in range(2):
        ledger.flush()
        assert sums(backend.database)["calls"] == 2 * len(KINDS)


def test_a_worker_of_celery_writes_it_before_it_ends() -> None:
    import llmcache.tasks  # noqa: F401 - connects the receiver

    ledger.record(Call(), 0.0)
    worker_process_shutdown.send(sender=None)
    assert sums() == {"calls": 1}


def test_too_many_groups_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_GROUPS", 3)
    told(*[Call(Outcome.HIT, Tier.HOT, namespace=str(number)) for number in range(9)])
    assert sums()["calls"] == 9
    assert rows().filter(namespace="").get().calls == 6


def test_what_cannot_be_counted_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bad: Any = Call(namespace=None)  # type: ignore[arg-type]
    told(bad, Call())
    assert sums() == {"calls": 1}
    assert "could not be counted" in caplog.text


def test_what_a_test_database_counted_is_not_for_the_real_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.record(Call(), 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(transactions, "database_name", lambda: "the real database")
        ledger.flush()
    ledger.flush()
    assert sums() == {}


def test_under_a_test_runner_nothing_is_written_behind_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buffer, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(ledger.flusher, "_job", None)
    ledger.record(Call(), 0.0)
    assert ledger.flusher._job is None
    assert sums() == {}


# Many processes


PROCESSES = 8
NAMES = ("namespace", "provider", "model", "response_model", "outcome", "tier", "reason_code")
CALLS_OF_EACH = extent(125, 12_500)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, [None]), indirect=True)
def test_it_equals_a_recount(model: StandIn, backend: Backend, tmp_path: Path) -> None:
    """Each process writes a line for each call it was told of; the sums of the lines are those of
    the ledger, which the processes wrote behind their calls."""
    order = {
        "llmcache_settings": {
            **backend.llmcache,
            "PRICES": {"gpt-4.1-mini": {"input": "0.37", "output": "1.61"}},
        },
        "base_url": model.url,
        "times": CALLS_OF_EACH,
    }
    started = [
        child.start_counted({**order, "seed": seed, "log": str(tmp_path / f"{seed}.log")})
        for seed in range(PROCESSES)
    ]
    for receiver in started:
        child.receive(receiver)
    expected: Counter[tuple[Any, ...]] = Counter()
    for path in tmp_path.glob("*.log"):
        for line in path.read_text().splitlines():
            call = json.loads(line)
            for name, fact in recounted(call).items():
                expected[(*(call[each] or "" for each in NAMES), name)] += fact
    found: Counter[tuple[Any, ...]] = Counter()
    for row in rows(backend.database).values(*NAMES, *SUMS):
        for name in SUMS:
            found[(*(row[each] for each in NAMES), name)] += row[name]
    assert +found == +expected
    assert sum(n for (*_, name), n in found.items() if name == "calls") == PROCESSES * CALLS_OF_EACH
    assert len({outcome for (*_, outcome, _, _, _) in found}) == len(Outcome)


def recounted(call: dict[str, Any]) -> dict[str, int]:
    """What one call is worth, by what its line says."""
    saved, spent = call["saved"], call["spent"]
    facts: Counter[str] = Counter(calls=1, stored=call["stored"], bytes_stored=call["size"])
    for kind, receipt in (("saved", saved), ("spent", spent)):
        for name in ("input_tokens", "output_tokens", "cost"):
            facts[f"{name}_{kind}"] += (receipt and receipt[name]) or 0
    facts["unpriced"] += any(each and each["cost"] is None for each in (saved, spent))
    if saved:
        took = round(call["seconds"] * 1e6)
        facts["microseconds_saved"] += max(0, saved["microseconds"] - took)
    return dict(facts)
