"""The rules of one call, walked through by hand."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from llmcache.exceptions import CacheMiss, CorruptEntry
from llmcache.flow.rules import answer
from llmcache.flow.steps import Acquire, Ask, Lookup, NotStorable, Request, Store
from llmcache.leases import alone
from llmcache.outcomes import Outcome, Tier
from llmcache.policy import CacheMode
from llmcache.reasons import ReasonCode
from llmcache.store.records import Missing
from tests.support.rules import (
    DRAFT,
    FRESH,
    HOT_FAILED,
    KEY,
    NO_KEY,
    STALE,
    FakeRequest,
    said,
)

ALONE = alone(KEY, 7)

READING = [mode for mode in CacheMode if mode.reads]

ASKING = [CacheMode.DEFAULT, CacheMode.FORCE_CACHE, CacheMode.RELOAD]


def walk(request: FakeRequest, *results: Any) -> tuple[list[Any], Any]:
    """The steps of the flow, its results being these, and what it gives back or raises.

    Getting ready is left out: the call gets its turn at once, and asks alone.
    """
    _: Request = request  # it has what the protocol asks for
    steps, taken, left = answer(request), [], list(results)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Acquire):
                step = steps.send(ALONE)
                continue
            taken.append(step)
            result = left.pop(0)
            throws = isinstance(result, BaseException)
            step = steps.throw(result) if throws else steps.send(result)
    except StopIteration as end:
        assert not left
        return taken, end.value


def store_it() -> Store:
    return Store(DRAFT, ALONE.generation)


def look_up(*, stale: bool = False) -> Lookup:
    return Lookup(KEY, stale=stale)


class TestHit:
    @pytest.mark.parametrize("mode", READING)
    def test_is_served_and_nobody_is_asked(self, mode: str) -> None:
        request = FakeRequest(mode)
        steps, served = walk(request, FRESH)
        assert steps == [look_up(stale=mode == "force-cache")]
        assert served == "from the store"
        assert said(request.call) == ("hit", "hot", False, "")
        assert request.done == [("restore", FRESH)]

    @pytest.mark.parametrize("value", [None, 0, "", [], False])
    def test_may_hold_what_is_not_true(self, value: Any) -> None:
        assert walk(FakeRequest(restored=value), FRESH)[1] == value

    def test_names_the_tier(self) -> None:
        for tier in Tier:
            request = FakeRequest()
            walk(request, replace(FRESH, tier=tier))
            assert request.call.tier is tier

    def test_with_force_cache_may_be_stale(self) -> None:
        request = FakeRequest("force-cache")
        steps, served = walk(request, STALE)
        assert steps == [look_up(stale=True)]
        assert served == "from the store"
        assert said(request.call) == ("stale", "durable", False, "")


class TestMiss:
    @pytest.mark.parametrize("mode", ["default", "force-cache"])
    def test_is_asked_and_stored(self, mode: str) -> None:
        request = FakeRequest(mode)
        steps, given = walk(request, Missing(), "live", None)
        assert steps == [look_up(stale=mode == "force-cache"), Ask(), store_it()]
        assert given == "live"
        assert said(request.call) == ("miss", None, True, "")
        assert request.done == ["before asking", ("draft", "live")]

    def test_says_what_trouble_there_was(self) -> None:
        request = FakeRequest()
        walk(request, Missing((HOT_FAILED,)), "live", None)
        assert request.call.reason == "the hot tier failed to read (TimeoutError)"
        assert request.call.reason_code is ReasonCode.TIER_FAILED

    @pytest.mark.parametrize(
        "error",
        [ValueError("x"), CorruptEntry("x"), KeyError("x"), RecursionError(), TypeError("x")],
        ids=repr,
    )
    def test_an_entry_that_cannot_be_restored_is_one(
        self, error: Exception, refused: list[Any]
    ) -> None:
        request = FakeRequest(restored=error)
        steps, given = walk(request, FRESH, "live", None)
        assert steps == [look_up(), Ask(), store_it()]
        assert given == "live"
        why = f"the entry does not validate any more ({type(error).__name__})"
        assert said(request.call) == ("miss", None, True, why)
        assert refused == [(KEY, Tier.HOT, error)]

    @pytest.mark.parametrize("given", [None, 0, "", [], NotStorable])
    def test_any_answer_is_handed_on(self, given: Any) -> None:
        assert walk(FakeRequest(), Missing(), given, None)[1] is given


def test_reload_asks_and_stores_without_a_look() -> None:
    request = FakeRequest("reload")
    steps, given = walk(request, "live", None)
    assert steps == [Ask(), store_it()]
    assert given == "live"
    assert said(request.call) == ("reload", None, True, "")


class TestBypass:
    def test_no_store_asks_and_does_nothing_else(self) -> None:
        request = FakeRequest("no-store")
        steps, given = walk(request, "live")
        assert steps == [Ask()]
        assert given == "live"
        assert said(request.call) == ("bypass", None, False, 'cache_mode is "no-store"')
        assert request.done == []

    @pytest.mark.parametrize("mode", ASKING)
    def test_a_call_without_a_key_is_asked(self, mode: str) -> None:
        request = FakeRequest(mode, bypass=NO_KEY)
        steps, given = walk(request, "live")
        assert steps == [Ask()]
        assert given == "live"
        assert said(request.call) == ("bypass", None, False, NO_KEY.text)
        assert request.call.reason_code is NO_KEY.code
        assert request.done == []

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
    def test_the_models_error_goes_through(self, error: BaseException) -> None:
        request = FakeRequest("no-store")
        with pytest.raises(type(error)) as caught:
            walk(request, error)
        assert caught.value is error
        assert request.call.outcome == "bypass"


class TestOnlyIfCached:
    def test_nothing_is_asked_when_nothing_is_stored(self) -> None:
        request = FakeRequest("only-if-cached")
        with pytest.raises(CacheMiss, match="nothing is stored") as caught:
            walk(request, Missing())
        assert (caught.value.key, caught.value.namespace) == (KEY, "default")
        assert isinstance(caught.value, LookupError)
        assert said(request.call) == ("miss", None, False, "")
        assert request.done == []

    def test_the_trouble_is_named(self) -> None:
        with pytest.raises(CacheMiss, match="the hot tier failed"):
            walk(FakeRequest("only-if-cached"), Missing((HOT_FAILED,)))

    def test_an_entry_that_cannot_be_restored_is_not_served(self, refused: list[Any]) -> None:
        request = FakeRequest("only-if-cached", restored=ValueError("x"))
        with pytest.raises(CacheMiss, match="does not validate any more"):
            walk(request, FRESH)
        assert len(refused) == 1

    def test_a_call_without_a_key_is_not_asked_either(self) -> None:
        request = FakeRequest("only-if-cached", bypass=ReasonCode.STREAMS_OF_MANY())
        with pytest.raises(CacheMiss, match="streamed answers are not cached") as caught:
            walk(request)
        assert "key - in" in str(caught.value)
        assert request.call.outcome == "bypass"


class TestStoring:
    """What goes wrong after the answer was paid for never takes it away."""

    def test_an_answer_that_should_not_be_kept_is_handed_on(self) -> None:
        request = FakeRequest(draft=NotStorable(ReasonCode.NO_TTL()))
        steps, given = walk(request, Missing(), "live")
        assert steps == [look_up(), Ask()]
        assert given == "live"
        assert said(request.call) == ("miss", None, False, "cache_ttl is 0")

    @pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), CorruptEntry("x")])
    def test_an_answer_that_cannot_be_encoded_is_handed_on(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        request = FakeRequest(draft=error)
        with caplog.at_level(logging.WARNING, "llmcache"):
            steps, given = walk(request, Missing(), "live")
        assert steps == [look_up(), Ask()]
        assert given == "live"
        why = f"the answer could not be encoded ({type(error).__name__})"
        assert said(request.call) == ("miss", None, False, why)
        assert "an answer was not stored" in caplog.text

    @pytest.mark.parametrize("mode", ASKING)
    def test_an_answer_that_the_store_refuses_is_handed_on(self, mode: CacheMode) -> None:
        request = FakeRequest(mode)
        found = [Missing()] if mode.reads else []
        steps, given = walk(request, *found, "live", ReasonCode.CIRCUIT_OPEN(tier="durable"))
        assert steps[-1] == store_it()
        assert given == "live"
        assert not request.call.stored
        assert request.call.reason_code is ReasonCode.CIRCUIT_OPEN

    def test_a_refusal_says_more_than_earlier_trouble(self) -> None:
        request = FakeRequest()
        refusal = ReasonCode.TOO_LARGE()
        walk(request, Missing((HOT_FAILED,)), "live", refusal)
        assert request.call.reason == refusal.text

    def test_what_fails_before_asking_does_not_matter(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        request = FakeRequest(before=RuntimeError("a redactor failed"))
        with caplog.at_level(logging.WARNING, "llmcache"):
            steps, given = walk(request, Missing(), "live", None)
        assert steps == [look_up(), Ask(), store_it()]
        assert given == "live"
        assert said(request.call) == ("miss", None, True, "")
        assert "without its request: RuntimeError" in caplog.text
        assert "a redactor failed" not in caplog.text


@pytest.mark.parametrize("mode", ASKING)
@pytest.mark.parametrize(
    "error",
    [ConnectionError("x"), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(1), CacheMiss],
    ids=repr,
)
def test_the_models_error_is_raised_as_it_is(mode: CacheMode, error: Any) -> None:
    if error is CacheMiss:  # of another client, inside the model's function
        error = CacheMiss("other", "other", "other")
    request = FakeRequest(mode)
    found = [Missing()] if mode.reads else []
    with pytest.raises(type(error)) as caught:
        walk(request, *found, error)
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert request.done == ["before asking"]
    outcome = Outcome.MISS if mode.reads else Outcome.RELOAD
    assert said(request.call) == (outcome, None, False, f"{type(error).__name__} was raised")
