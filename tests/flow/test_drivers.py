"""The two drivers carry the rules out alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from llmcache import signals
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.steps import NotStorable
from llmcache.outcomes import Call, Tier, capture
from llmcache.reasons import ReasonCode
from llmcache.store import lookups
from llmcache.store.records import Missing
from tests.support.rules import (
    DRAFT,
    FRESH,
    HOT_FAILED,
    KEY,
    NO_KEY,
    STALE,
    FakeEntries,
    FakeRequest,
    said,
    told,
)

# The drivers


@dataclass
class Scenario:
    """What a driver meets: the request, what the store and the model say to it."""

    request: Callable[[], FakeRequest]
    found: Any = None
    live: Any = "live"
    refusal: Any = None


UNSTORABLE = NotStorable(ReasonCode.REFUSED())

BROKEN = ValueError("broken")

SCENARIOS: dict[str, Scenario] = {
    "hit": Scenario(FakeRequest, FRESH),
    "stale": Scenario(lambda: FakeRequest("force-cache"), STALE),
    "miss": Scenario(FakeRequest, Missing()),
    "trouble": Scenario(FakeRequest, Missing((HOT_FAILED,))),
    "refused entry": Scenario(lambda: FakeRequest(restored=BROKEN), FRESH),
    "refused by the store": Scenario(FakeRequest, Missing(), refusal=ReasonCode.TOO_LARGE()),
    "reload": Scenario(lambda: FakeRequest("reload")),
    "no-store": Scenario(lambda: FakeRequest("no-store")),
    "bypass": Scenario(lambda: FakeRequest(bypass=NO_KEY)),
    "not storable": Scenario(lambda: FakeRequest(draft=UNSTORABLE), Missing()),
    "not encodable": Scenario(lambda: FakeRequest(draft=BROKEN), Missing()),
    "nothing before": Scenario(lambda: FakeRequest(before=BROKEN), Missing()),
    "only-if-cached, hit": Scenario(lambda: FakeRequest("only-if-cached"), FRESH),
    "only-if-cached, miss": Scenario(lambda: FakeRequest("only-if-cached"), Missing()),
    "only-if-cached, bypass": Scenario(lambda: FakeRequest("only-if-cached", bypass=NO_KEY)),
    "error": Scenario(FakeRequest, Missing(), live=ConnectionError("down")),
    "error without store": Scenario(lambda: FakeRequest("no-store"), live=BROKEN),
    "interrupted": Scenario(FakeRequest, Missing(), live=KeyboardInterrupt()),
    "cancelled": Scenario(FakeRequest, Missing(), live=asyncio.CancelledError()),
    "cancelled in the lookup": Scenario(FakeRequest, asyncio.CancelledError()),
    "interrupted while storing": Scenario(FakeRequest, Missing(), refusal=KeyboardInterrupt()),
}

Driven = tuple[list[Any], Any, list[Any], tuple[Any, ...]]


def driven(scenario: Scenario, how: Callable[..., Any]) -> Driven:
    """The effects in order, what came of it, what the request did, and what its call says."""
    request, store = scenario.request(), FakeEntries(scenario.found, scenario.refusal)

    def ask() -> Any:
        store.effects.append("ask")
        return told(scenario.live)

    with pytest.MonkeyPatch.context() as patch:
        store.take_over(patch)
        try:
            result = how(request, ask)
        except BaseException as error:  # noqa: BLE001 - compared
            result = type(error), str(error)
    return store.effects, result, request.done, said(request.call)


def asynchronously(request: FakeRequest, ask: Callable[[], Any]) -> Any:
    async def aask() -> Any:
        await asyncio.sleep(0)
        return ask()

    # By hand: `asyncio.run` treats an interrupt in its own way.
    return by_hand(adrive(request, aask))


def by_hand(coroutine: Awaitable[Any]) -> Any:
    steps = coroutine.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_both_drivers_do_the_same(scenario: Scenario) -> None:
    assert driven(scenario, drive) == driven(scenario, asynchronously)


@pytest.mark.parametrize("how", [drive, asynchronously])
class TestDrivers:
    @pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
    def test_every_call_is_recorded_and_signalled_once(
        self, how: Any, scenario: Scenario, answered: list[Call]
    ) -> None:
        with_receiver = how if how is drive else run_async
        with capture() as calls:
            driven(scenario, with_receiver)
        assert len(calls) == 1
        assert answered == calls
        assert calls[0].seconds > 0

    def test_carry_out_each_step_in_turn(self, how: Any) -> None:
        effects, result, _, told_of = driven(SCENARIOS["miss"], how)
        assert effects == [("lookup", KEY, False), "ask", ("save", DRAFT)]
        assert result == "live"
        assert told_of == ("miss", None, True, "")

    def test_do_not_ask_for_a_hit(self, how: Any) -> None:
        effects, result, _, told_of = driven(SCENARIOS["hit"], how)
        assert effects == [("lookup", KEY, False)]
        assert result == "from the store"
        assert told_of == ("hit", "hot", False, "")

    def test_report_an_entry_that_is_refused(self, how: Any) -> None:
        effects, result, _, _ = driven(SCENARIOS["refused entry"], how)
        assert effects[1] == ("refuse", KEY, Tier.HOT, BROKEN)
        assert result == "live"

    def test_raise_the_models_own_error(self, how: Any) -> None:
        error = ConnectionError("down")
        effects, result, _, told_of = driven(Scenario(FakeRequest, Missing(), live=error), how)
        assert result == (ConnectionError, "down")
        assert effects == [("lookup", KEY, False), "ask"]
        assert told_of[-1] == "ConnectionError was raised"


def run_async(request: FakeRequest, ask: Callable[[], Any]) -> Any:
    """`asynchronously`, on an event loop: receivers of signals need one."""
    raised: list[BaseException] = []

    async def main() -> Any:
        async def aask() -> Any:
            return ask()

        try:
            return await adrive(request, aask)
        except BaseException as error:  # noqa: BLE001 - raised again, outside of the loop
            raised.append(error)

    result = asyncio.run(main())
    if raised:
        raise raised[0]
    return result


async def test_a_failing_receiver_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: Any) -> None:
        raise RuntimeError("receiver")

    FakeEntries(FRESH, None).take_over(monkeypatch)
    signals.call_answered.connect(fail)
    try:
        assert drive(FakeRequest(), lambda: "live") == "from the store"

        async def ask() -> str:
            return "live"

        assert await adrive(FakeRequest(), ask) == "from the store"
    finally:
        signals.call_answered.disconnect(fail)


async def test_an_asynchronous_receiver_of_a_refusal_does_no_harm() -> None:
    """The flow is a function also where a coroutine drives it: it cannot await receivers."""

    async def receive(**_: Any) -> None:
        await asyncio.sleep(0)

    async def ask() -> str:
        return "live"

    fake = FakeEntries(FRESH, None)
    fake.refuse = lookups.refuse  # type: ignore[method-assign]
    signals.entry_refused.connect(receive)
    try:
        with pytest.MonkeyPatch.context() as patch:
            fake.take_over(patch)
            assert await adrive(FakeRequest(restored=BROKEN), ask) == "live"
    finally:
        signals.entry_refused.disconnect(receive)


async def test_a_cancelled_call_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeEntries(Missing(), None)
    store.take_over(monkeypatch)
    asked = asyncio.Event()

    async def ask() -> str:
        asked.set()
        await asyncio.sleep(60)
        return "late"

    with capture() as calls:
        task = asyncio.create_task(adrive(FakeRequest(), ask))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert store.effects == [("lookup", KEY, False)]
    assert calls[0].reason == "CancelledError was raised"


def test_a_stop_iteration_of_the_models_function_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeEntries(Missing(), None).take_over(monkeypatch)
    stop = StopIteration("nothing left")
    with pytest.raises(StopIteration) as caught, capture() as calls:
        drive(FakeRequest(), lambda: told(stop))
    assert caught.value is stop
    assert calls[0].reason == "StopIteration was raised"

    other = RuntimeError("of its own")
    other.__cause__ = StopIteration()
    with pytest.raises(RuntimeError, match="of its own"):
        drive(FakeRequest(), lambda: told(other))
