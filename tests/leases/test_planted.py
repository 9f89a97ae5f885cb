"""Leases that nobody holds: planted by who can write to the tier, or left there for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from redis import Redis

import llmcache
from llmcache.breakers import is_up
from llmcache.leases import kinds, places
from llmcache.leases.kinds import Seen
from llmcache.leases.places import HOT, ROWS
from llmcache.models import Lease as LeaseRow
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from project.standin.server import StandIn
from tests.support.backends import Backend, backend_parameters, use_backend
from tests.support.clients import CALL, make_client
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

KEY = "ab" * 32
HOUR = 3600


@pytest.fixture(params=backend_parameters(["default"], ["redis", "django-redis", "django"]))
def shared(request: pytest.FixtureRequest, settings: Any) -> Backend:
    """A hot tier that all share, and leases of one second there."""
    chosen = use_backend(request, settings, request.param)
    settings.LLMCACHE = {**settings.LLMCACHE, "LEASE_SECONDS": 1, "WAIT_SECONDS": 20}
    return chosen


def in_redis(plant: Callable[[Any, str], object]) -> Callable[[str], None]:
    """Plants something under the name that a key's lease has in Redis."""

    def planted(key: str) -> None:
        cache = hot.backend()
        assert cache is not None
        location = django_settings.CACHES["redis"]["LOCATION"]
        plant(Redis.from_url(location), cache.make_key(kinds._lease(key)))

    return planted


PLANTED = {
    "without an end": in_redis(lambda server, name: server.set(name, "nobody")),
    "for an hour": in_redis(lambda server, name: server.set(name, "nobody:1", ex=HOUR)),
    "a number": in_redis(lambda server, name: server.set(name, 4711)),
    "not text": in_redis(lambda server, name: server.set(name, b"\xff\xfe:1")),
    "too long": in_redis(lambda server, name: server.set(name, "x" * 10_000)),
    "nothing": in_redis(lambda server, name: server.set(name, b"")),
    "a list": in_redis(lambda server, name: server.lpush(name, "x")),
    "a hash": in_redis(lambda server, name: server.hset(name, "a", "b")),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_in_redis_holds_nobody_up(
    model: StandIn, shared: Backend, what: str
) -> None:
    client = make_client(model)
    PLANTED[what](llmcache.key_for(client, **CALL))
    started = time.monotonic()
    client.create(**CALL)
    assert time.monotonic() - started < 3
    assert is_up(Tier.HOT)


def test_nor_does_a_planted_row(model: StandIn, database: str, settings: Any) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "LEASE_SECONDS": 1, "WAIT_SECONDS": 20}
    client = make_client(model)
    LeaseRow.objects.using(database).create(
        key=llmcache.key_for(client, **CALL),
        token="nobody",
        expires_at=timezone.now() + timedelta(days=1),
    )
    started = time.monotonic()
    client.create(**CALL)
    assert time.monotonic() - started < 3


def test_who_takes_over_has_the_lease(shared: Backend) -> None:
    PLANTED["for an hour"](KEY)
    assert HOT.acquire(KEY, "first") == "nobody"
    assert HOT.observe(KEY, "nobody") is Seen.ASKING
    wait_until(lambda: HOT.observe(KEY, "nobody") is Seen.GONE)
    assert HOT.acquire(KEY, "first") is None
    assert HOT.acquire(KEY, "second") == "first"


def test_one_of_those_who_wait_takes_over_a_row(database: str, settings: Any) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "LEASE_SECONDS": 1}
    ends = timezone.now() + timedelta(days=1)
    LeaseRow.objects.using(database).create(key=KEY, token="nobody", expires_at=ends)
    assert ROWS.acquire(KEY, "first") == "nobody"
    assert ROWS.observe(KEY, "nobody") is Seen.ASKING
    wait_until(lambda: ROWS.observe(KEY, "nobody") is Seen.GONE)
    assert ROWS.acquire(KEY, "first") is None
    assert ROWS.acquire(KEY, "second") == "first"


def test_a_holder_who_renews_is_waited_for(shared: Backend) -> None:
    assert HOT.acquire(KEY, "first") is None
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        HOT.renew(KEY, "first")
        assert HOT.acquire(KEY, "second") == "first"
        assert HOT.observe(KEY, "first") is Seen.ASKING
        time.sleep(0.2)


def test_where_what_is_planted_stays_the_rows_have_the_lease(
    shared: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "drop", lambda _: None)
    monkeypatch.setattr(HOT, "patience", 0.0)
    PLANTED["not text"](KEY)
    assert places.acquire(KEY, "first") == (ROWS, None)


def test_no_more_are_watched_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MOST_WATCHED", 2)
    kinds._watched.clear()
    for key in ("a", "b", "c"):
        assert not kinds.is_silent(key, "sign")
    assert set(kinds._watched) == {"b", "c"}
