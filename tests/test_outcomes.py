"""`capture`: the calls inside a block, of this thread and its tasks, and no others."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import llmcache
from llmcache.outcomes import Call, Outcome, Tier, capture
from llmcache.usage.ledger import record


def made(key: str) -> Call:
    call = Call(key=key)
    record(call, time.perf_counter())
    return call


def keys(calls: list[Call]) -> list[str]:
    return [call.key for call in calls]


def test_it_is_public() -> None:
    assert llmcache.capture is capture


def test_calls_inside_the_block_are_seen_in_order() -> None:
    made("before")
    with capture() as calls:
        first, second = made("a"), made("b")
        assert calls[0] is first
        assert calls[1] is second
    made("after")
    assert keys(calls) == ["a", "b"]


def test_an_outer_block_sees_what_inner_ones_see() -> None:
    with capture() as outer:
        made("a")
        with capture() as inner:
            made("b")
        with capture() as second:
            made("c")
        made("d")
    assert (keys(outer), keys(inner), keys(second)) == (["a", "b", "c", "d"], ["b"], ["c"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_the_block_ends_with_an_exception(error: type[BaseException]) -> None:
    with capture() as outer:
        with pytest.raises(error), capture() as inner:
            raise error(made("a"))
        made("b")
    made("c")
    assert (keys(outer), keys(inner)) == (["a", "b"], ["a"])


def test_threads_do_not_mix() -> None:
    start, seen = threading.Barrier(8), {}

    def work(name: str) -> None:
        with capture() as calls:
            start.wait()
            for _ in range(100):
                made(name)
            seen[name] = keys(calls)

    names = [str(number) for number in range(8)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    with capture() as here:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert here == []
    assert seen == {name: [name] * 100 for name in names}


async def test_tasks_that_are_started_inside_are_seen_and_others_are_not() -> None:
    go = asyncio.Event()

    async def call(key: str) -> None:
        await go.wait()
        made(key)

    before = asyncio.create_task(call("before"))
    with capture() as calls:
        inside = [asyncio.create_task(call("inside")) for _ in range(2)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(before, *inside)
        await call("here")
    assert keys(calls) == ["inside", "inside", "here"]


async def test_tasks_with_blocks_of_their_own_do_not_mix() -> None:
    async def work(name: str) -> list[str]:
        with capture() as calls:
            for _ in range(3):
                await asyncio.sleep(0)
                made(name)
        return keys(calls)

    with capture() as both:
        one, other = await asyncio.gather(work("a"), work("b"))
    assert (one, other) == (["a"] * 3, ["b"] * 3)
    assert sorted(keys(both)) == ["a"] * 3 + ["b"] * 3


async def test_a_thread_for_a_coroutine_is_seen() -> None:
    """`asyncio.to_thread` carries the context along, as `sync_to_async` does."""
    with capture() as calls:
        await asyncio.to_thread(made, "a")
    assert keys(calls) == ["a"]


def test_the_duration_is_measured() -> None:
    call = Call()
    record(call, time.perf_counter() - 2)
    assert 2 <= call.seconds < 3


def test_outcomes_and_tiers_compare_as_strings() -> None:
    assert [str(outcome) for outcome in Outcome] == ["hit", "stale", "miss", "reload", "bypass"]
    call = Call(outcome=Outcome.HIT, tier=Tier.HOT)
    assert call.outcome == "hit"
    assert call.tier == "hot"
    assert f"{call.outcome}/{call.tier}" == "hit/hot"
