"""The rules of one call, walked through by hand, and the two drivers that carry them out."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pytest

from llmcache import signals
from llmcache.exceptions import CacheMiss, CorruptEntry
from llmcache.flow import (
    Acquire,
    Ask,
    Leader,
    Lookup,
    NotStorable,
    Request,
    Store,
    StreamRequest,
    adrive,
    adrive_stream,
    answer,
    drive,
    drive_stream,
    drivers,
    rules,
)
from llmcache.outcomes import Call, Inside, Outcome, Tier, capture
from llmcache.policy import CacheMode, Policy
from llmcache.reasons import Reason, ReasonCode
from llmcache.store import lookups
from llmcache.store.records import Draft, Found, Missing

KEY = "ab" * 32
DRAFT = Draft(key=KEY, namespace="default", payload=b"sealed", created=1.0)
FRESH = Found(b"body", Tier.HOT, 2e9)
STALE = Found(b"body", Tier.DURABLE, 1.0, stale_for=60.0)
ALONE = Leader(None, 7)
HOT_FAILED = ReasonCode.TIER_FAILED(tier="hot", operation="read", error="TimeoutError")
NO_KEY = ReasonCode.NO_KEY(error="TypeError")
ODD = ReasonCode.NOT_REPRODUCIBLE(why="it is odd")
READING = [mode for mode in CacheMode if mode.reads]
ASKING = [CacheMode.DEFAULT, CacheMode.FORCE_CACHE, CacheMode.RELOAD]


class FakeRequest:
    """A call whose parts do as they are told: an exception is raised, anything else given back."""

    def __init__(
        self,
        mode: str = "default",
        *,
        bypass: Reason | None = None,
        restored: Any = "from the store",
        draft: Any = DRAFT,
        before: Any = None,
        billed: Any = None,
    ) -> None:
        self.call = Call(key="" if bypass else KEY, namespace="default")
        self.policy = Policy(CacheMode(mode))
        self.bypass = bypass
        self.restored, self.drafted, self.before = restored, draft, before
        self.billed, self.bills = billed, list[Any]()
        self.asks_alone = self.begun = False
        self.inside: Inside | None = None
        self.done: list[Any] = []

    def again(self) -> Callable[[Any], Any]:
        self.done.append("again")
        return lambda lease: self.done.append(("refreshed", lease))

    def restore(self, found: Found) -> Any:
        self.done.append(("restore", found))
        return told(self.restored)

    def before_asking(self) -> None:
        self.done.append("before asking")
        told(self.before)

    def bill(self, answer: Any, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.bills.append(answer)
        told(self.billed)

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        assert asked > 1.7e9
        assert 0 <= latency < 60
        self.done.append(("draft", answer))
        draft: Draft = told(self.drafted)
        return draft


def told(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


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


def said(call: Call) -> tuple[Any, ...]:
    return call.outcome, call.tier, call.stored, call.reason


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


@pytest.fixture
def refused() -> Iterator[list[Any]]:
    seen: list[Any] = []

    def receive(sender: Any, key: str, tier: Tier, error: Exception, **_: Any) -> None:
        seen.append((key, tier, error))

    signals.entry_refused.connect(receive)
    yield seen
    signals.entry_refused.disconnect(receive)


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


# The drivers


class FakeEntries:
    """Stands in for the store, and notes what it is asked."""

    def __init__(self, found: Any, refusal: Any) -> None:
        self.found, self.refusal = found, refusal
        self.effects: list[Any] = []

    def lookup(self, key: str, *, stale: bool) -> Any:
        self.effects.append(("lookup", key, stale))
        return told(self.found)

    def save(self, draft: Draft, generation: int | None) -> Any:
        self.effects.append(("save", draft))
        return told(self.refusal)

    async def alookup(self, key: str, *, stale: bool) -> Any:
        await asyncio.sleep(0)
        return self.lookup(key, stale=stale)

    async def asave(self, draft: Draft, generation: int | None) -> Any:
        await asyncio.sleep(0)
        return self.save(draft, generation)

    def generation(self) -> int | None:
        return 7

    async def ageneration(self) -> int | None:
        await asyncio.sleep(0)
        return 7

    def copy_of(self, draft: Draft) -> Any:
        return None

    def acquire(self, key: str, seconds: float, refused: Any = None) -> Any:
        return None

    async def aacquire(self, key: str, seconds: float, refused: Any = None) -> Any:
        await asyncio.sleep(0)

    def take_over(self, patch: pytest.MonkeyPatch) -> None:
        """Be the store, and the leases, of the flow."""
        patch.setattr(rules, "store", self)
        patch.setattr(drivers, "store", self)
        patch.setattr(drivers, "acquire", self.acquire)
        patch.setattr(drivers, "aacquire", self.aacquire)

    def refuse(self, key: str, tier: Tier, error: Exception) -> None:
        self.effects.append(("refuse", key, tier, error))


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


@pytest.fixture
def answered() -> Iterator[list[Call]]:
    """What the signal `call_answered` told."""
    seen: list[Call] = []

    def receive(sender: Any, call: Call, **_: Any) -> None:
        assert issubclass(sender, FakeRequest)
        seen.append(call)

    signals.call_answered.connect(receive)
    yield seen
    signals.call_answered.disconnect(receive)


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


# Streams


class StreamingRequest(FakeRequest):
    """Its items are encoded as `encode` says."""

    def __init__(
        self, mode: str = "default", *, encode: Callable[[Any], Any] = str, **parts: Any
    ) -> None:
        super().__init__(mode, **{"restored": [1, 2, 3]} | parts)
        self.encode = encode
        _: StreamRequest = self

    def encode_item(self, item: Any) -> bytes:
        self.done.append(("encode", item))
        return str(told(self.encode(item))).encode()

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        return super().draft(answer.items(), asked, latency)


class Source:
    """The model's stream; it notes how far it was read, and whether it was closed."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.read = 0
        self.closed = False

    def open(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.read += 1
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed = True

    async def aopen(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(0)
                self.read += 1
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            await asyncio.sleep(0)
            self.closed = True


def read_sync(request: StreamingRequest, source: Source, most: int | None) -> list[Any]:
    stream = drive_stream(request, source.open)
    with closing(stream):
        return list(islice(stream, most))


def read_async(request: StreamingRequest, source: Source, most: int | None) -> list[Any]:
    async def read() -> list[Any]:
        items: list[Any] = []
        async with aclosing(adrive_stream(request, source.aopen)) as stream:
            while most is None or len(items) < most:
                try:
                    items.append(await anext(stream))
                except StopAsyncIteration:
                    break
        return items

    return asyncio.run(read())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeEntries:
    store = FakeEntries(Missing(), None)
    store.take_over(monkeypatch)
    return store


@pytest.mark.parametrize("read", [read_sync, read_async])
class TestStreams:
    def test_items_are_handed_on_and_stored_at_the_end(self, read: Any, store: Any) -> None:
        request, source = StreamingRequest(), Source("a", "b")
        assert read(request, source, None) == ["a", "b"]
        assert store.effects == [("lookup", KEY, False), ("save", DRAFT)]
        assert request.done == [
            "before asking",
            ("encode", "a"),
            ("encode", "b"),
            ("draft", [b"a", b"b"]),
        ]
        assert said(request.call) == ("miss", None, True, "")

    def test_an_empty_stream_is_an_answer(self, read: Any, store: Any) -> None:
        request = StreamingRequest()
        assert read(request, Source(), None) == []
        assert request.done == ["before asking", ("draft", [])]
        assert request.call.stored

    def test_a_hit_replays_the_items_and_asks_nobody(self, read: Any, store: Any) -> None:
        store.found = FRESH
        request, source = StreamingRequest(), Source("a")
        assert read(request, source, None) == [1, 2, 3]
        assert (source.read, source.closed) == (0, False)
        assert said(request.call) == ("hit", "hot", False, "")

    def test_a_hit_need_not_be_read_to_its_end(self, read: Any, store: Any) -> None:
        store.found = FRESH
        request = StreamingRequest()
        assert read(request, Source(), 2) == [1, 2]
        assert said(request.call) == ("hit", "hot", False, "")

    def test_one_that_is_not_read_to_its_end_is_closed_and_not_stored(
        self, read: Any, store: Any
    ) -> None:
        request, source = StreamingRequest(), Source("a", "b", "c")
        with capture() as calls:
            assert read(request, source, 2) == ["a", "b"]
        assert (source.read, source.closed) == (2, True)
        assert store.effects == [("lookup", KEY, False)]
        why = "the stream was not read to its end"
        assert [said(call) for call in calls] == [("miss", None, False, why)]

    def test_nothing_is_done_for_one_that_is_not_read(self, read: Any, store: Any) -> None:
        source = Source("a")
        with capture() as calls:
            assert read(StreamingRequest(), source, 0) == []
        assert (store.effects, calls, source.read) == ([], [], 0)

    def test_the_models_error_goes_through_and_nothing_is_stored(
        self, read: Any, store: Any
    ) -> None:
        error = ConnectionError("down")
        request, source = StreamingRequest(), Source("a", error)
        with pytest.raises(ConnectionError) as caught:
            read(request, source, None)
        assert caught.value is error
        assert source.closed
        assert store.effects == [("lookup", KEY, False)]
        assert said(request.call) == ("miss", None, False, "ConnectionError was raised")

    @pytest.mark.parametrize(
        ("mode", "parts", "why"),
        [
            ("no-store", {}, 'cache_mode is "no-store"'),
            ("default", {"bypass": NO_KEY}, NO_KEY.text),
        ],
    )
    def test_a_bypass_records_nothing(
        self, read: Any, store: Any, mode: str, parts: dict[str, Any], why: str
    ) -> None:
        request = StreamingRequest(mode, **parts)
        assert read(request, Source("a", "b"), None) == ["a", "b"]
        assert request.done == store.effects == []
        assert said(request.call) == ("bypass", None, False, why)

    def test_only_if_cached_opens_no_stream(self, read: Any, store: Any) -> None:
        source = Source("a")
        with pytest.raises(CacheMiss):
            read(StreamingRequest("only-if-cached"), source, None)
        assert source.read == 0

    def test_reload_asks_without_a_look(self, read: Any, store: Any) -> None:
        request = StreamingRequest("reload")
        assert read(request, Source("a"), None) == ["a"]
        assert store.effects == [("save", DRAFT)]
        assert said(request.call) == ("reload", None, True, "")

    def test_an_item_that_cannot_be_kept_ends_the_recording(self, read: Any, store: Any) -> None:
        request = StreamingRequest(encode=lambda item: NotStorable(ODD) if item == "b" else item)
        assert read(request, Source("a", "b", "c"), None) == ["a", "b", "c"]
        assert store.effects == [("lookup", KEY, False)]
        assert said(request.call) == ("miss", None, False, ODD.text)

    def test_what_fails_in_encoding_does_not_reach_the_caller(self, read: Any, store: Any) -> None:
        request = StreamingRequest(encode=lambda item: RecursionError())
        assert read(request, Source("a", "b"), None) == ["a", "b"]
        assert request.call.reason == "the answer could not be encoded (RecursionError)"

    def test_a_stream_without_end_does_not_fill_the_memory(
        self, read: Any, store: Any, settings: Any
    ) -> None:
        settings.LLMCACHE = {"MAX_ENTRY_BYTES": 10}
        request = StreamingRequest(encode=lambda item: "1234")
        assert len(read(request, Source(*range(100)), None)) == 100
        assert request.done == ["before asking", *(("encode", item) for item in range(3))]
        assert not request.call.stored
        assert "MAX_ENTRY_BYTES" in request.call.reason

    def test_each_is_recorded_and_signalled_once(
        self, read: Any, store: Any, answered: list[Call]
    ) -> None:
        with capture() as calls:
            read(StreamingRequest(), Source("a"), None)
        assert len(calls) == 1
        assert answered == calls
        assert calls[0].seconds > 0


def test_an_item_is_encoded_before_the_caller_may_change_it(store: Any) -> None:
    request = StreamingRequest()
    for item in drive_stream(request, lambda: iter([["a"], ["b"]])):
        item.clear()
    assert ("draft", [b"['a']", b"['b']"]) in request.done


def test_a_stream_is_shown_where_the_call_was_made(store: Any) -> None:
    with capture() as inside:
        stream = drive_stream(StreamingRequest(), lambda: iter("ab"))
    with capture() as outside:
        assert list(stream) == ["a", "b"]
    assert [call.stored for call in inside] == [True]
    assert outside == []


def test_a_stream_that_is_forgotten_is_closed(store: Any) -> None:
    source = Source("a", "b")
    stream = drive_stream(StreamingRequest(), source.open)
    assert next(stream) == "a"
    del stream
    gc.collect()
    assert source.closed
    assert store.effects == [("lookup", KEY, False)]


async def test_a_cancelled_stream_stores_nothing(store: Any) -> None:
    closed = asyncio.Event()

    async def never_ending() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            closed.set()

    async def read() -> None:
        async for _ in adrive_stream(request, never_ending):
            begun.set()

    request, begun = StreamingRequest(), asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert store.effects == [("lookup", KEY, False)]
    assert request.call.reason == "CancelledError was raised"
