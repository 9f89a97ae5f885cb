"""A tier that comes back, on a Redis of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from llmcache import breakers, signals, store
from llmcache.breakers import FAILURES, FIRST_PAUSE, Use
from llmcache.outcomes import Tier
from llmcache.resilience import outages, recovery
from llmcache.resilience.failsafe import attempt
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from tests.support.breakers import TROUBLE, fail
from tests.support.copies import write_copy
from tests.support.entries import KEY, draft, look_up
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

BOUND = 1.0  # a server that does not answer costs 0.1 seconds

SOON = 15.0  # a tier that is well again is found within a second or two

# A tier that comes back, on a Redis of its own


@pytest.fixture
def changes() -> Iterator[list[tuple[str, str, bool]]]:
    """What the signal `tier_changed` tells: tier, state, and whether there is an error."""
    heard: list[tuple[str, str, bool]] = []

    def listen(sender: object, tier: str, state: str, error: object, **kwargs: Any) -> None:
        heard.append((tier, state, error is not None))

    signals.tier_changed.connect(listen)
    yield heard
    signals.tier_changed.disconnect(listen)


@pytest.fixture
def _no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_hooks", {side: [] for side in breakers.SIDES})


def take_out() -> None:
    """Let the hot tier fail until its circuit is open."""
    for _ in range(FAILURES):
        attempt(Tier.HOT, "read", partial(hot.read, KEY))
    assert not breakers.is_up(Tier.HOT)


@pytest.mark.redis
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("breaks", "mends"), [("pause", "resume"), ("kill", "start")])
def test_without_the_hot_tier_the_rows_answer_until_it_is_back(
    redis: RedisServer, changes: Any, breaks: str, mends: str, is_async: bool
) -> None:
    assert store.save(draft()) is None
    wait_until(lambda: getattr(look_up(), "tier", None) == Tier.HOT)

    getattr(redis, breaks)()
    for _ in range(FAILURES):
        started = time.monotonic()
        found = look_up(is_async)
        assert isinstance(found, Found)
        assert found.tier == Tier.DURABLE
        assert time.monotonic() - started < BOUND
    wait_until(lambda: not breakers.is_up(Tier.HOT))
    assert look_up(is_async).tier == Tier.DURABLE
    wait_until(lambda: [each.tier for each in outages.current()] == ["hot"])

    getattr(redis, mends)()
    wait_until(lambda: breakers.is_up(Tier.HOT))
    wait_until(lambda: look_up(is_async).tier == Tier.HOT)
    wait_until(lambda: not outages.current().exists())
    wait_until(lambda: len(changes) > 1)
    assert changes == [("hot", "open", True), ("hot", "closed", False)]


@pytest.mark.redis
@pytest.mark.usefixtures("_no_hooks")
def test_nothing_is_trusted_before_the_hooks_are_done(redis: RedisServer) -> None:
    seen: list[object] = []
    go_on = threading.Event()

    def hook() -> None:
        seen.append(breakers.is_up(Tier.HOT))
        hot.delete([KEY])
        if len(seen) == 1:
            raise TROUBLE
        assert go_on.wait(SOON)

    recovery.before_closing(Tier.HOT, Use.READ, hook)
    write_copy(KEY, b"doubtful", None)
    redis.pause()
    take_out()
    redis.resume()
    wait_until(lambda: len(seen) == 2)
    assert not breakers.is_up(Tier.HOT)
    with pytest.raises(breakers.CircuitOpen):
        hot.read(KEY)
    go_on.set()
    wait_until(lambda: breakers.is_up(Tier.HOT))
    assert seen == [True, True]
    assert hot.read(KEY) is None


@pytest.mark.redis
def test_a_probe_that_fails_makes_the_rest_longer(redis: RedisServer) -> None:
    redis.stop()
    take_out()
    its = breakers.breakers[Tier.HOT, Use.READ]
    wait_until(lambda: its.wait() > FIRST_PAUSE)
    assert not its.is_closed
    redis.start()
    wait_until(lambda: its.is_closed)


@pytest.mark.redis
def test_one_that_takes_no_memory_stays_out_until_it_does(redis: RedisServer) -> None:
    from redis import Redis

    with Redis.from_url(redis.url) as operator:
        operator.config_set("maxmemory", 1)
        for _ in range(FAILURES):
            attempt(Tier.HOT, "write", partial(write_copy, KEY, b"copy", None))
        its = breakers.breakers[Tier.HOT, Use.WRITE]
        wait_until(lambda: its.wait() > FIRST_PAUSE)
        operator.config_set("maxmemory", 0)
        wait_until(lambda: its.is_closed)


@pytest.mark.redis
def test_settings_that_change_end_the_rest(redis: RedisServer, settings: Any) -> None:
    redis.stop()
    take_out()
    its = breakers.breakers[Tier.HOT, Use.READ]
    settings.LLMCACHE = {"CACHE": None}
    assert breakers.is_up(Tier.HOT)
    # (and nobody tries the tier that it was)
    wait_until(lambda: its.wait() < 0)
    assert recovery._try_again((Tier.HOT, Use.READ), its, timezone.now()) is None
    assert not its.is_closed


@pytest.mark.usefixtures("_closed")
def test_the_rows_are_tried_too(transactional_db: None, changes: Any, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None}
    for _ in range(FAILURES):
        attempt(Tier.DURABLE, "read", partial(fail, TROUBLE))
    assert not breakers.is_up(Tier.DURABLE)
    wait_until(lambda: breakers.is_up(Tier.DURABLE))
    wait_until(lambda: changes == [("durable", "open", True), ("durable", "closed", False)])
