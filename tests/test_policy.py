"""What a call may ask of the cache, and what `override` makes of it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

import llmcache
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.policy import UNSET, CacheMode, Policy, overridden, override
from llmcache.values import LONGEST_TTL

MODES = ["default", "no-store", "reload", "force-cache", "only-if-cached"]
CALL = Policy().changed(mode="reload", ttl=5, tags=["call"], namespace="call")


class TestMode:
    @pytest.mark.parametrize("mode", MODES)
    def test_takes_the_names_of_the_fetch_standard(self, mode: str) -> None:
        assert Policy().changed(mode=mode).mode == mode
        assert Policy().changed(mode=CacheMode(mode)).mode is CacheMode(mode)

    def test_there_are_no_others(self) -> None:
        assert sorted(MODES) == sorted(CacheMode)

    @pytest.mark.parametrize("mode", MODES)
    def test_reads_unless_it_says_otherwise(self, mode: str) -> None:
        assert CacheMode(mode).reads == (mode not in {"no-store", "reload"})

    @pytest.mark.parametrize(
        "mode", ["", "Default", "no_store", "no-cache", "NO_STORE", None, True, 1, [], {}], ids=repr
    )
    def test_refuses_others_and_names_all_five(self, mode: Any) -> None:
        with pytest.raises(InvalidArgument, match=r"^mode is one of") as caught:
            Policy().changed(mode=mode)
        assert all(repr(name) in str(caught.value) for name in MODES)
        assert isinstance(caught.value, ValueError)


class TestTTL:
    @pytest.mark.parametrize(
        ("ttl", "seconds"),
        [
            *[(3600, 3600.0), (1.5, 1.5), (0, 0.0), (0.0, 0.0), (None, None)],
            *[(timedelta(days=7), 604800.0), (timedelta(0), 0.0)],
            (LONGEST_TTL, LONGEST_TTL.total_seconds()),
        ],
    )
    def test_takes_seconds_a_timedelta_or_none(self, ttl: Any, seconds: float | None) -> None:
        assert Policy().changed(ttl=ttl).ttl_seconds == seconds

    @pytest.mark.parametrize(
        "ttl",
        [-1, -0.001, timedelta(-1), float("nan"), float("inf"), LONGEST_TTL * 2, 10**12],
        ids=repr,
    )
    def test_refuses_what_is_out_of_range(self, ttl: Any) -> None:
        with pytest.raises(InvalidArgument, match="ttl takes seconds") as caught:
            Policy().changed(ttl=ttl)
        assert isinstance(caught.value, ValueError)
        assert not isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("ttl", [True, False, "60", b"60", Decimal(60), [60], object()])
    def test_refuses_other_types(self, ttl: Any) -> None:
        with pytest.raises(InvalidArgumentType, match="ttl takes seconds") as caught:
            Policy().changed(ttl=ttl)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, llmcache.InvalidArgument)


@pytest.mark.parametrize(
    ("argument", "seconds_of"),
    [
        ("stale_while_revalidate", lambda policy: policy.revalidate_seconds),
        ("stale_if_error", lambda policy: policy.if_error_seconds),
    ],
    ids=["stale_while_revalidate", "stale_if_error"],
)
class TestStaleness:
    @pytest.mark.parametrize(
        ("window", "seconds"),
        [(60, 60.0), (1.5, 1.5), (0, 0.0), (timedelta(days=1), 86400.0), (timedelta(0), 0.0)],
    )
    def test_takes_seconds_or_a_timedelta(
        self, argument: str, seconds_of: Any, window: Any, seconds: float
    ) -> None:
        found = seconds_of(Policy().changed(**{argument: window}))
        assert (type(found), found) == (float, seconds)

    @pytest.mark.parametrize(
        "window", [-1, -0.001, timedelta(-1), float("nan"), float("inf"), 10**12], ids=repr
    )
    def test_refuses_what_is_out_of_range(
        self, argument: str, seconds_of: Any, window: Any
    ) -> None:
        with pytest.raises(InvalidArgument, match=f"{argument} takes seconds") as caught:
            Policy().changed(**{argument: window})
        assert not isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("window", [None, True, False, "60", b"60", Decimal(60), [60]])
    def test_refuses_other_types(self, argument: str, seconds_of: Any, window: Any) -> None:
        with pytest.raises(InvalidArgumentType, match=f"{argument} takes seconds .* and 0 for"):
            Policy().changed(**{argument: window})

    def test_is_left_to_the_settings(self, argument: str, seconds_of: Any, settings: Any) -> None:
        settings.LLMCACHE = {}
        assert seconds_of(Policy()) == 0.0
        settings.LLMCACHE = {argument.upper(): timedelta(minutes=1)}
        assert seconds_of(Policy()) == 60.0
        assert seconds_of(Policy().changed(**{argument: 0})) == 0.0

    def test_an_override_wins(self, argument: str, seconds_of: Any) -> None:
        inside: dict[str, Any] = {argument: 5}
        off: dict[str, Any] = {argument: -5}
        with override(**inside):
            assert seconds_of(overridden(Policy().changed(**{argument: 7}))) == 5.0
        with pytest.raises(InvalidArgument), override(**off):
            pytest.fail("the block was entered")


class TestTags:
    @pytest.mark.parametrize(
        "tags", [["a", "b"], ("b", "a"), {"a", "b"}, iter(["a", "b", "a"]), {"a": 1, "b": 2}]
    )
    def test_take_any_collection_of_strings(self, tags: Any) -> None:
        assert Policy().changed(tags=tags).tags == {"a", "b"}

    def test_are_added(self) -> None:
        assert Policy().changed(tags=["a"]).changed(tags=["b"]).tags == {"a", "b"}
        assert Policy().changed(tags=["a"]).changed(tags=[]).tags == {"a"}

    @pytest.mark.parametrize("tags", ["doc:42", "", None, 1, True], ids=repr)
    def test_refuse_what_is_no_list(self, tags: Any) -> None:
        with pytest.raises(InvalidArgumentType, match=r'as in \["doc:42"\]'):
            Policy().changed(tags=tags)

    @pytest.mark.parametrize("tag", [None, 1, b"a", ["a"], True], ids=repr)
    def test_refuse_what_is_no_string(self, tag: Any) -> None:
        with pytest.raises(InvalidArgumentType, match="tags: a tag is a string"):
            Policy().changed(tags=["good", tag])

    @pytest.mark.parametrize("tag", ["", "x" * 256, "a\0b", "a\n", "\ud800"], ids=ascii)
    def test_refuse_what_no_database_keeps(self, tag: str) -> None:
        with pytest.raises(InvalidArgument, match="tags: a tag has 1 to 255 printable"):
            Policy().changed(tags=["good", tag])

    def test_a_long_one_does_not_fill_the_message(self) -> None:
        with pytest.raises(InvalidArgument) as caught:
            Policy().changed(tags=["x" * 10**6])
        assert len(str(caught.value)) < 200


class TestNamespace:
    @pytest.mark.parametrize("namespace", ["a", "tenant 1", "ü" * 255])
    def test_takes_a_name(self, namespace: str) -> None:
        assert Policy().changed(namespace=namespace).namespace_name == namespace

    @pytest.mark.parametrize("namespace", [None, 1, b"a", ["a"]], ids=repr)
    def test_refuses_other_types(self, namespace: Any) -> None:
        with pytest.raises(InvalidArgumentType, match=r"^namespace is a string"):
            Policy().changed(namespace=namespace)

    @pytest.mark.parametrize("namespace", ["", "x" * 256, "a\0", "\t"], ids=ascii)
    def test_refuses_what_no_database_keeps(self, namespace: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^namespace has 1 to 255"):
            Policy().changed(namespace=namespace)


def test_what_is_not_said_is_left_to_the_settings(settings: Any) -> None:
    policy = Policy()
    settings.LLMCACHE = {"TTL": 7, "NAMESPACE": "a"}
    assert (policy.ttl_seconds, policy.namespace_name) == (7.0, "a")
    settings.LLMCACHE = {"TTL": None, "NAMESPACE": "b"}
    assert (policy.ttl_seconds, policy.namespace_name) == (None, "b")
    assert policy.changed() is policy
    assert policy.changed(mode=UNSET, ttl=UNSET, tags=UNSET, namespace=UNSET) is policy


class TestOverride:
    def test_does_nothing_around_it(self) -> None:
        assert overridden(CALL) is CALL
        with override():
            assert overridden(CALL) == CALL

    def test_wins_over_the_call(self) -> None:
        with override(mode="no-store", ttl=timedelta(minutes=1), namespace="block"):
            policy = overridden(CALL)
        assert policy == Policy(CacheMode.NO_STORE, 60.0, frozenset({"call"}), "block", True)
        assert overridden(CALL) is CALL

    def test_none_is_no_expiry_and_not_nothing(self) -> None:
        with override(ttl=None):
            assert overridden(CALL).ttl_seconds is None

    def test_changes_only_what_is_named(self) -> None:
        with override(mode="only-if-cached"):
            policy = overridden(CALL)
        assert policy == CALL.changed(mode="only-if-cached")

    def test_adds_its_tags(self) -> None:
        with override(tags=["outer"]), override(tags=iter(["inner"])):
            for _ in range(2):
                assert overridden(CALL).tags == {"call", "outer", "inner"}

    def test_an_inner_block_wins_and_the_outer_one_comes_back(self) -> None:
        with override(mode="no-store", ttl=1, tags=["outer"]):
            with override(mode="reload", tags=["inner"]):
                inner = overridden(Policy())
            outer = overridden(Policy())
        assert inner == Policy(CacheMode.RELOAD, 1.0, frozenset({"outer", "inner"}))
        assert outer == Policy(CacheMode.NO_STORE, 1.0, frozenset({"outer"}))
        assert overridden(Policy()) == Policy()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
    def test_ends_with_an_exception(self, error: type[BaseException]) -> None:
        with pytest.raises(error), override(mode="no-store"):
            raise error
        assert overridden(CALL) is CALL

    @pytest.mark.parametrize(
        "wish", [{"mode": "x"}, {"ttl": True}, {"tags": "a"}, {"tags": [1]}, {"namespace": ""}]
    )
    def test_refuses_at_once_what_cannot_be_meant(self, wish: Any) -> None:
        with pytest.raises(InvalidArgument), override(**wish):
            pytest.fail("the block was entered")
        assert overridden(CALL) is CALL

    def test_decorates_a_function(self) -> None:
        @override(mode="no-store")
        def call() -> Policy:
            return overridden(Policy())

        assert [call().mode, call().mode] == ["no-store", "no-store"]
        assert overridden(Policy()) == Policy()

    def test_is_not_seen_by_another_thread(self) -> None:
        seen: list[Policy] = []
        with override(mode="no-store"):
            thread = threading.Thread(target=lambda: seen.append(overridden(Policy())))
            thread.start()
            thread.join()
        assert seen == [Policy()]

    async def test_is_seen_by_tasks_that_are_started_inside_and_by_no_other(self) -> None:
        entered, left = asyncio.Event(), asyncio.Event()

        async def mode() -> str:
            await left.wait()
            return overridden(Policy()).mode

        async def around() -> str:
            with override(mode="no-store"):
                inside = asyncio.create_task(mode())
                await asyncio.sleep(0)
                entered.set()
            return await inside

        outside = asyncio.create_task(mode())
        block = asyncio.create_task(around())
        await entered.wait()
        assert overridden(Policy()) == Policy()
        left.set()
        assert [await outside, await block] == ["default", "no-store"]

    async def test_two_tasks_do_not_mix(self) -> None:
        async def modes(mode: Any) -> list[str]:
            seen = []
            for _ in range(10):
                with override(mode=mode):
                    await asyncio.sleep(0)
                    seen.append(str(overridden(Policy()).mode))
            return seen

        found = await asyncio.gather(*map(modes, MODES))
        assert found == [[mode] * 10 for mode in MODES]
