"""The breaker of a tier: when it opens, who tries the tier, and how it closes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, OperationalError
from django.utils import timezone
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmcache import breakers, signals, store
from llmcache.breakers import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker, State, Use
from llmcache.outcomes import Tier
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience import outages, recovery
from llmcache.resilience.failsafe import attempt, failing_safe, reporting
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found
from tests.support.entries import KEY, draft, look_up
from tests.support.forks import in_a_fork
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

TROUBLE = OSError("no answer")

BOUND = 1.0  # a server that does not answer costs 0.1 seconds

SOON = 15.0  # a tier that is well again is found within a second or two


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def one(clock: Clock) -> Breaker:
    return Breaker(clock)


def ask_in_vain(it: Breaker) -> bool:
    """One asks, and the tier fails; whether this opened it."""
    return it.failed(TROUBLE, it.mark)


def open_it(it: Breaker) -> None:
    for _ in range(FAILURES):
        ask_in_vain(it)
    assert it.state is State.OPEN


# The states


def test_it_opens_after_some_failures_in_a_row(one: Breaker) -> None:
    assert [ask_in_vain(one) for _ in range(FAILURES + 1)] == [False, False, True, False]
    assert one.state is State.OPEN
    assert one.error is TROUBLE


def test_a_success_between_begins_the_count_anew(one: Breaker) -> None:
    for _ in range(3):
        ask_in_vain(one)
        ask_in_vain(one)
        one.succeeded(one.mark)
    assert one.is_closed


def test_a_success_that_began_before_a_failure_says_nothing(one: Breaker) -> None:
    mark = one.mark
    for _ in range(FAILURES):
        ask_in_vain(one)
        one.succeeded(mark)
    assert one.state is State.OPEN
    one.succeeded(one.mark)
    assert one.state is State.OPEN


def test_those_who_ask_at_once_meet_one_failure(one: Breaker) -> None:
    for _ in range(FAILURES - 1):
        marks = [one.mark for _ in range(50)]
        assert not any(one.failed(TROUBLE, mark) for mark in marks)
    marks = [one.mark for _ in range(50)]
    assert [one.failed(TROUBLE, mark) for mark in marks].count(True) == 1


def test_it_opens_though_somebody_is_always_asking(one: Breaker) -> None:
    marks = [one.mark]
    for _ in range(2 * FAILURES):
        marks.append(one.mark)
        one.failed(TROUBLE, marks.pop(0))
    assert one.state is State.OPEN


def test_it_is_probed_once_after_a_pause(one: Breaker, clock: Clock) -> None:
    open_it(one)
    assert one.wait() == FIRST_PAUSE
    assert not one.may_probe()
    clock.now += FIRST_PAUSE
    assert one.may_probe()
    assert not one.may_probe()
    assert not one.is_closed
    assert one.probe_succeeded()
    assert one.is_closed
    assert one.error is None


def test_the_pause_doubles_up_to_a_bound_and_begins_anew(one: Breaker, clock: Clock) -> None:
    open_it(one)
    pauses = []
    for _ in range(7):
        pauses.append(one.wait())
        clock.now += one.wait()
        assert one.may_probe()
        one.probe_failed(TROUBLE)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.now += LONGEST_PAUSE
    assert one.may_probe()
    one.probe_succeeded()
    open_it(one)
    assert one.wait() == FIRST_PAUSE


def test_it_is_confirmed_by_a_probe_that_fails(one: Breaker, clock: Clock) -> None:
    seen = [one.is_confirmed]
    open_it(one)
    seen.append(one.is_confirmed)
    clock.now += FIRST_PAUSE
    one.may_probe()
    one.probe_failed(TROUBLE)
    seen.append(one.is_confirmed)
    clock.now += LONGEST_PAUSE
    one.may_probe()
    seen.append(one.is_confirmed)
    one.probe_succeeded()
    seen.append(one.is_confirmed)
    open_it(one)
    seen.append(one.is_confirmed)
    assert seen == [False, False, True, True, False, False]


def test_only_who_probes_may_say_how_it_went(one: Breaker) -> None:
    one.probe_failed(TROUBLE)
    assert one.is_closed
    assert not one.probe_succeeded()
    open_it(one)
    assert not one.probe_succeeded()
    assert not one.is_closed


def test_of_many_threads_one_opens_it_and_one_probes(one: Breaker, clock: Clock) -> None:
    barrier = threading.Barrier(16)

    def at_once(work: Callable[[], bool]) -> bool:
        barrier.wait()
        return work()

    ask_in_vain(one)
    ask_in_vain(one)
    with ThreadPoolExecutor(16) as threads:
        opened = list(threads.map(at_once, [partial(ask_in_vain, one)] * 16))
        clock.now += FIRST_PAUSE
        probing = list(threads.map(at_once, [one.may_probe] * 16))
    assert (opened.count(True), probing.count(True)) == (1, 1)


class Machine(RuleBasedStateMachine):
    """Any order of events, against the rules in plain words."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.it = Breaker(self.clock)
        self.state, self.failures, self.pause, self.since = State.CLOSED, 0, 0.0, 0.0

    def rest(self, pause: float) -> None:
        self.state, self.pause, self.since = State.OPEN, pause, self.clock.now

    @rule()
    def success(self) -> None:
        self.it.succeeded(self.it.mark)
        if self.state is State.CLOSED:
            self.failures = 0

    @rule()
    def failure(self) -> None:
        mark = self.it.mark
        opened = self.it.failed(TROUBLE, mark)
        self.it.succeeded(mark)  # as of a block around it
        self.failures += self.state is State.CLOSED
        assert opened == (self.state is State.CLOSED and self.failures == 3)
        if opened:
            self.rest(1)

    @rule(seconds=st.sampled_from([0.4, 1, 5, 40]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def try_to_probe(self) -> None:
        due = self.state is State.OPEN and self.clock.now - self.since >= self.pause
        assert self.it.may_probe() == due
        if due:
            self.state = State.HALF_OPEN

    @rule(well=st.booleans())
    def probe_ends(self, well: bool) -> None:
        probing = self.state is State.HALF_OPEN
        if well:
            assert self.it.probe_succeeded() == probing
            if probing:
                self.state, self.failures = State.CLOSED, 0
        else:
            self.it.probe_failed(TROUBLE)
            if probing:
                self.rest(min(30, self.pause * 2))

    @invariant()
    def agrees(self) -> None:
        assert self.it.state is self.state
        assert self.it.is_closed == (self.it.error is None)


Machine.TestCase.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=40, deadline=None
)

TestMachine = Machine.TestCase


def fail(error: Exception) -> Any:
    raise error


def test_a_tier_that_rests_is_not_asked(unwatched: list[Tier]) -> None:
    troubles: list[Reason] = []
    for _ in range(FAILURES):
        assert attempt(Tier.DURABLE, "read", partial(fail, TROUBLE), troubles) is None
    assert attempt(Tier.DURABLE, "read", pytest.fail, troubles, default=b"d") == b"d"
    assert list(map(str, troubles)) == [
        *["the durable tier failed to read (OSError)"] * 3,
        "the circuit of the durable tier is open",
    ]
    assert unwatched == [Tier.DURABLE]
    assert breakers.is_up(Tier.HOT)


def test_who_rests_is_reported_once(unwatched: list[Tier]) -> None:
    troubles: list[Reason] = []
    for _ in range(10):
        attempt(Tier.DURABLE, "read", partial(fail, TROUBLE), troubles)
    assert sum(trouble.code is ReasonCode.TIER_FAILED for trouble in troubles) == FAILURES


def test_a_success_is_told(unwatched: list[Tier]) -> None:
    for _ in range(FAILURES):
        attempt(Tier.DURABLE, "read", partial(fail, TROUBLE))
        attempt(Tier.DURABLE, "read", partial(fail, TROUBLE))
        assert attempt(Tier.DURABLE, "read", lambda: 7) == 7
    assert unwatched == []


def test_a_failure_inside_of_a_success_counts(unwatched: list[Tier]) -> None:
    """As when a coroutine asks a thread for a lookup that fails safe itself."""
    for _ in range(FAILURES):
        with failing_safe(Tier.DURABLE, "read"), failing_safe(Tier.DURABLE, "read"):
            raise TimeoutError
    assert unwatched == [Tier.DURABLE]


@pytest.mark.parametrize("error", [ImproperlyConfigured("x"), DataError("x"), TypeError("x")])
def test_what_is_not_the_tiers_fault_does_not_count(
    unwatched: list[Tier], error: Exception
) -> None:
    troubles: list[Reason] = []
    for _ in range(FAILURES):
        attempt(Tier.HOT, "read", partial(fail, error), troubles)
    assert unwatched == []
    assert sum(trouble.code is ReasonCode.TIER_FAILED for trouble in troubles) == FAILURES


@pytest.mark.parametrize("error", [OperationalError("x"), TimeoutError(), RuntimeError("x")])
def test_everything_else_counts(unwatched: list[Tier], error: Exception) -> None:
    for _ in range(FAILURES):
        attempt(Tier.HOT, "read", partial(fail, error))
    assert unwatched == [Tier.HOT]


@pytest.mark.parametrize("tier", [Tier.HOT, Tier.DURABLE])
def test_a_soft_time_limit_of_celery_ends_the_task(unwatched: list[Tier], tier: Tier) -> None:
    """An `Exception` that a signal raises in the middle of our work, and which is not ours."""

    def work() -> None:
        raise SoftTimeLimitExceeded

    for _ in range(FAILURES):
        with pytest.raises(SoftTimeLimitExceeded):
            attempt(tier, "read", work)
        with pytest.raises(SoftTimeLimitExceeded), failing_safe(tier, "read"):
            work()
        with pytest.raises(SoftTimeLimitExceeded), reporting(tier, "read"):
            work()
    assert unwatched == []


def test_who_only_reports_says_nothing_of_the_tier(unwatched: list[Tier]) -> None:
    for _ in range(FAILURES):
        with reporting(Tier.HOT, "count"):
            raise TROUBLE
        attempt(Tier.DURABLE, "read", partial(fail, TROUBLE))
        with reporting(Tier.DURABLE, "count"):
            pass
    assert unwatched == [Tier.DURABLE]


def test_a_copy_in_this_process_has_no_breaker() -> None:
    for _ in range(FAILURES + 1):
        troubles: list[Reason] = []
        with failing_safe(Tier.LOCAL, "read", troubles):
            raise TROUBLE
        assert list(map(str, troubles)) == ["the local tier failed to read (OSError)"]


def test_a_forked_child_asks_again(unwatched: list[Tier]) -> None:
    open_it(breakers.breakers[Tier.HOT, Use.READ])
    with breakers.breakers[Tier.HOT, Use.READ]._lock:
        assert in_a_fork(lambda: [breakers.is_up(Tier.HOT)]) == [True]
    assert not breakers.is_up(Tier.HOT)


def test_other_settings_are_another_tier(unwatched: list[Tier], settings: Any) -> None:
    open_it(breakers.breakers[Tier.HOT, Use.READ])
    settings.LANGUAGE_CODE = "de"
    assert not breakers.is_up(Tier.HOT)
    settings.LLMCACHE = {"CACHE": None}
    assert breakers.is_up(Tier.HOT)


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
    monkeypatch.setattr(breakers, "_hooks", {side: [] for side in breakers.SIDES})


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

    breakers.before_closing(Tier.HOT, Use.READ, hook)
    hot.write(KEY, b"doubtful", None)
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
            attempt(Tier.HOT, "write", partial(hot.write, KEY, b"copy", None))
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
