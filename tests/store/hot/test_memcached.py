"""Memcached as the hot tier: it forgets what it held, and cannot tell what it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from llmcache import breakers
from llmcache.models import CacheEntry
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client
from tests.support.copies import write_copy
from tests.support.servers import MemcachedServer, require
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

KEY = "a" * 64


@pytest.fixture
def server(settings: Any) -> Iterator[MemcachedServer]:
    require(MemcachedServer)
    with MemcachedServer() as server:
        params: dict[str, Any] = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": [server.url],
            "OPTIONS": {"timeout": 0.05, "connect_timeout": 3, "no_delay": True},
        }
        settings.CACHES = {**settings.CACHES, "hot": params}
        settings.LLMCACHE = {"CACHE": "hot"}
        yield server


@pytest.fixture
def client(server: MemcachedServer, model: StandIn) -> Any:
    return make_client(model)


def tier(client: Any) -> Tier | None:
    with llmcache.capture() as calls:
        client.create(**CALL)
    return calls[0].tier


def test_it_is_used_as_it_is(server: MemcachedServer) -> None:
    write_copy(KEY, b"sealed", None)
    assert hot.read(KEY) == b"sealed"
    assert hot.may_bring_back() is False


def test_one_that_hangs_keeps_nobody_waiting(server: MemcachedServer, settings: Any) -> None:
    del settings.CACHES["hot"]["OPTIONS"]  # (it waits for ever)
    write_copy(KEY, b"sealed", None)
    server.pause()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        hot.read(KEY)
    assert time.monotonic() - started < 1.5
    server.resume()
    assert hot.read(KEY) == b"sealed"


def test_what_has_a_row_is_removed(client: Any) -> None:
    client.create(**CALL)
    wait_until(lambda: tier(client) is Tier.HOT)
    result = llmcache.invalidate(keys=[llmcache.key_for(client, **CALL)])
    assert (result.entries, result.pending) == (1, ())
    assert tier(client) is None


def test_what_has_no_row_may_stay(client: Any) -> None:
    client.create(**CALL)
    wait_until(lambda: tier(client) is Tier.HOT)
    CacheEntry.objects.all()._raw_delete("default")
    result = llmcache.invalidate(everything=True)
    assert result.pending == ("hot",)
    assert result.pending_until is not None
    assert tier(client) is Tier.HOT
    # By its key, it is reached.
    assert llmcache.invalidate(keys=[llmcache.key_for(client, **CALL)]).pending == ()
    assert tier(client) is None


def test_one_that_is_gone_is_done_without(client: Any, server: MemcachedServer) -> None:
    client.create(**CALL)
    wait_until(lambda: tier(client) is Tier.HOT)
    server.kill()
    assert tier(client) is Tier.DURABLE
    server.start()  # it comes back empty
    wait_until(lambda: breakers.is_up(Tier.HOT) and tier(client) is Tier.HOT, 30)
