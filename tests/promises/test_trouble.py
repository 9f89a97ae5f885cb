"""With a tier down, or both, calls are answered all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from llmcache import breakers, signals
from llmcache.leases import places
from llmcache.outcomes import Call, Tier
from project.standin.server import StandIn
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters, unreachable
from tests.support.clients import CALL, make_client
from tests.support.servers import RedisServer, require
from tests.support.waiting import wait_until


@pytest.fixture
def troubles() -> Iterator[list[tuple[str, str]]]:
    """What the signal `tier_failed` tells: tier and operation."""
    heard: list[tuple[str, str]] = []

    def listen(sender: object, tier: str, operation: str, **kwargs: Any) -> None:
        heard.append((str(tier), operation))

    signals.tier_failed.connect(listen)
    yield heard
    signals.tier_failed.disconnect(listen)


@pytest.fixture(params=["redis", "django-redis", "django"])
def redis(request: pytest.FixtureRequest, settings: Any) -> Iterator[RedisServer]:
    """A Redis of its own as the hot tier, which the test may stop."""
    require(RedisServer)
    with RedisServer() as server:
        fragile = settings.CACHES[request.param] | {"LOCATION": server.url}
        settings.CACHES = settings.CACHES | {"fragile": fragile}
        yield server


def ask(model: StandIn, times: int, is_async: bool) -> list[Call]:
    client = make_client(model, async_client=is_async)

    async def main() -> None:
        for _ in range(times):
            assert (await client.create(**CALL)).title

    with llmcache.capture() as calls:
        if is_async:
            asyncio.run(main())
        else:
            for _ in range(times):
                assert client.create(**CALL).title
    return calls


either = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

rows_only = pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, [None]), indirect=True
)


@either
@rows_only
@pytest.mark.redis
def test_the_hot_tier_is_down(
    model: StandIn,
    backend: Backend,
    redis: RedisServer,
    settings: Any,
    troubles: Any,
    is_async: bool,
) -> None:
    settings.LLMCACHE = backend.llmcache | {"CACHE": "fragile"}
    redis.stop()
    calls = ask(model, 2, is_async)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    assert calls[1].tier == "durable"
    assert len(model.calls) == 1
    assert "hot tier failed to read" in calls[0].reason
    # (after three failures it is not asked any more)
    assert {("hot", "read"), ("hot", "lease from")} <= set(troubles)


@either
@rows_only
@pytest.mark.redis
def test_the_database_is_down_behind_a_warm_hot_tier(
    model: StandIn,
    backend: Backend,
    redis: RedisServer,
    settings: Any,
    troubles: Any,
    is_async: bool,
) -> None:
    settings.LLMCACHE = backend.llmcache | {"CACHE": "fragile"}
    ask(model, 1, is_async)
    with unreachable(backend.database):
        calls = ask(model, 2, is_async)
    assert [call.tier for call in calls] == ["hot", "hot"]
    assert troubles == []


@either
@rows_only
@pytest.mark.redis
def test_both_tiers_are_down(
    model: StandIn,
    backend: Backend,
    redis: RedisServer,
    settings: Any,
    troubles: Any,
    is_async: bool,
) -> None:
    settings.LLMCACHE = backend.llmcache | {"CACHE": "fragile"}
    redis.stop()
    with unreachable(backend.database):
        calls = ask(model, 2, is_async)
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)] * 2
    assert len(model.calls) == 2
    assert "durable tier failed to write" in calls[0].reason
    assert {("hot", "read"), ("durable", "read"), ("durable", "write")} <= set(troubles)


@either
@rows_only
def test_the_database_is_down_and_comes_back(
    model: StandIn, backend: Backend, troubles: Any, is_async: bool
) -> None:
    with unreachable(backend.database):
        assert ask(model, 1, is_async)[0].stored is False
    wait_until(lambda: breakers.is_up(Tier.DURABLE))
    calls = ask(model, 2, is_async)
    assert [(call.outcome, call.reason) for call in calls] == [("miss", ""), ("hit", "")]


@pytest.mark.parametrize(
    "backend", backend_parameters(["postgres", "mariadb"], ["database"]), indirect=True
)
def test_what_is_not_stored_has_no_hot_copy(model: StandIn, backend: Backend) -> None:
    """An invalidation finds hot copies by their rows: without a row it would miss one."""
    with unreachable(backend.database):
        ask(model, 1, is_async=False)
    assert ask(model, 1, is_async=False)[0].outcome == "miss"


@rows_only
def test_invalidating_with_the_database_down_says_so(model: StandIn, backend: Backend) -> None:
    ask(model, 1, is_async=False)
    with unreachable(backend.database):
        result = llmcache.invalidate(everything=True)
    assert result.pending == ("durable",)
    assert ask(model, 1, is_async=False)[0].outcome == "hit"


@pytest.mark.redis
@rows_only
def test_invalidating_with_the_hot_tier_down_says_so(
    model: StandIn, backend: Backend, redis: RedisServer, settings: Any
) -> None:
    settings.LLMCACHE = backend.llmcache | {"CACHE": "fragile"}
    ask(model, 1, is_async=False)
    redis.stop()
    result = llmcache.invalidate(everything=True)
    assert (result.entries, result.pending) == (1, ("hot",))


@pytest.mark.parametrize(
    "change",
    [
        {"LOCATION": "127.0.0.1:6379/0"},
        {"OPTIONS": {"SERIALIZER": "llmcache.serializers.BytesSerialiser"}},
        {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_conect_timeout": 1}}},
    ],
    ids=["no scheme", "no such serializer", "no such option"],
)
@pytest.mark.redis
def test_an_error_in_the_hot_alias_delays_no_call(
    model: StandIn, database: str, settings: Any, change: dict[str, Any]
) -> None:
    """Trying for the lease again and again would not mend it."""
    broken = {**settings.CACHES["redis"], **change}
    settings.CACHES = {**settings.CACHES, "broken": broken}
    settings.LLMCACHE = {"DATABASE": database, "CACHE": "broken"}
    began = time.monotonic()
    assert [call.outcome for call in ask(model, 2, is_async=False)] == ["miss", "hit"]
    assert time.monotonic() - began < places.HOT.patience


def test_settings_without_the_hot_alias(model: StandIn, database: str, settings: Any) -> None:
    settings.LLMCACHE = {"DATABASE": database, "CACHE": "nowhere"}
    assert [call.outcome for call in ask(model, 2, is_async=False)] == ["miss", "hit"]
