"""The one place where the failure of a tier stops."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, OperationalError

from llmcache import breakers
from llmcache.breakers import FAILURES, Use
from llmcache.outcomes import Tier
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience.failsafe import attempt, failing_safe, reporting
from tests.support.breakers import TROUBLE, fail, open_it
from tests.support.forks import in_a_fork


def test_a_tier_that_rests_is_not_asked(unwatched: list[Tier]) -> None:
    troubles: list[Reason] = []
    for _ in range(FAILURES):
        assert attempt(Tier.DURABLE, "read", partial(fail, TROUBLE), troubles) is None
    assert attempt(Tier.DURABLE, "read", pytest.fail, troubles) is None
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
