"""``manage.py llmcache_status``, and the outages that it shows."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from llmcache import breakers, store
from llmcache.breakers import FAILURES, Use
from llmcache.models import Lease, Outage, PendingEviction
from llmcache.outcomes import Tier
from llmcache.resilience import outages
from llmcache.store.hot import epochs
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters, unreachable
from tests.support.entries import KEY, OTHER_KEY, draft
from tests.support.health import status


def text() -> str:
    output = StringIO()
    call_command("llmcache_status", stdout=output)
    return output.getvalue()


def test_it_names_and_tries_the_tiers(backend: Backend) -> None:
    told = status()
    assert told["durable"]["backend"].endswith(f"({backend.database})")
    assert told["durable"]["milliseconds"] >= 0
    if backend.cache is None:
        assert told["hot"] == {"backend": "none"}
    else:
        name = "DatabaseCache" if backend.cache == "database" else "RedisCache"
        assert told["hot"]["backend"].endswith(f"{name} ({backend.cache})")
        assert told["hot"]["milliseconds"] >= 0
        store.save(draft())  # (the epoch begins with the first copy, at the latest)
        store.lookup(KEY)
        assert status()["hot"]["copies_since"] <= timezone.now().isoformat()


def test_it_counts(database: str) -> None:
    store.save(draft())
    store.save(draft(OTHER_KEY, ttl=-1))
    now, hour = timezone.now(), timedelta(hours=1)
    for number, (token, ends) in enumerate(
        [("t", now + hour), ("", now + hour), ("t", now - hour)]
    ):
        Lease.objects.using(database).create(key=str(number), token=token, expires_at=ends)
    notes = PendingEviction.objects.using(database)
    notes.create(keys=["a", "b"], created_at=now - hour, until=now)
    notes.create(keys=["c"], created_at=now, until=now + hour)
    told = status()
    assert told["stored"] == {"entries": 2, "expired": 1, "leases": 1}
    pending = told["pending_evictions"]
    assert (pending["rows"], pending["keys"]) == (2, 3)
    assert pending["oldest"] < pending["certainly_gone"]
    assert "  keys            3\n" in text()


@pytest.mark.parametrize("backend", backend_parameters(ALL_DATABASES, [None]), indirect=True)
def test_a_database_that_is_down_is_told(backend: Backend) -> None:
    with unreachable(backend.database):
        told = status(fails=True)
    assert "OperationalError" in told["durable"]["error"]
    assert "error" in told["stored"]


@pytest.mark.parametrize("backend", backend_parameters(["default"], ["database"]), indirect=True)
def test_what_cannot_be_found_out_is_told_people_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("no answer")

    monkeypatch.setattr(epochs, "began_at", fail)
    assert "{'error': 'OSError: no answer'}" in text()


@pytest.mark.django_db(transaction=True)
def test_a_hot_tier_that_is_down_is_told(settings: Any) -> None:
    gone = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1/0",
        "OPTIONS": {"serializer": "llmcache.serializers.BytesSerializer"},
    }
    settings.CACHES = {**settings.CACHES, "gone": gone}
    for alias in ("gone", "nowhere"):
        settings.LLMCACHE = {"CACHE": alias}
        told = status(fails=True)
        assert told["hot"]["error"]
        assert told["stored"]["entries"] == 0


# Outages


def test_an_outage_is_a_row_of_its_process(database: str, unwatched: Any) -> None:
    error, since = OSError(111, "no\0answer\ud800"), timezone.now()
    for _ in range(FAILURES):
        its = breakers.breakers[Tier.HOT, Use.READ]
        its.failed(error, its.mark)
    outages.record(Tier.HOT, Use.READ, since, error)
    outages.record(Tier.HOT, Use.READ, since, error)
    [told] = status()["outages"]
    assert (told["process"], told["tier"]) == (outages.process(), "hot")
    assert told["error"] == "(read) ConnectionRefusedError 111"
    assert "without the hot tier since" in text()
    outages.forget(Tier.HOT)
    assert status()["outages"] == []


def test_what_is_over_is_not_noted(database: str, unwatched: Any) -> None:
    outages.record(Tier.HOT, Use.READ, timezone.now(), OSError())
    assert status()["outages"] == []


def test_processes_that_are_gone_are_swept_up(database: str) -> None:
    long_ago = timezone.now() - outages.GONE_AFTER
    rows = Outage.objects.using(database)
    rows.create(process="gone:1", tier="hot", since=long_ago, seen_at=long_ago)
    assert not outages.current().exists()
    status()
    assert not rows.exists()


def test_a_database_that_is_down_keeps_nobody(database: str) -> None:
    with unreachable(database):
        outages.record(Tier.HOT, Use.READ, timezone.now(), OSError())
        outages.forget(Tier.HOT)
