"""The breaker of a tier: when it opens, who tries the tier, and how it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmcache.breakers import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker, State
from tests.support.breakers import TROUBLE, ask_in_vain, open_it


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
