"""Stale answers (RFC 5861): served while a new one is fetched, by whoever fetches it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import llmcache
from llmcache.models import Lease
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support import child
from tests.support.backends import Backend
from tests.support.clients import CALL, make_client
from tests.support.stale import (
    NEW,
    OLD,
    REVALIDATE,
    TTL,
    _told,
    astore_and_let_expire,
    seen,
    served_from_rows,
    store_and_let_expire,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# What the processes of `child` ask.
CHILDS = {"messages": [{"role": "user", "content": "The printer is on fire."}]}


class TestWhileRevalidating:
    def test_is_served_at_once_and_refreshed_behind_the_caller(
        self, backend: Backend, model: StandIn
    ) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        model.latency = 2
        began = time.monotonic()
        with llmcache.capture() as calls:
            assert client.create(**CALL, **REVALIDATE).title == "old"
        assert time.monotonic() - began < 1.5
        assert seen(calls[0]) == ("stale", "durable", False)
        only_cached = {**CALL, "cache_mode": "only-if-cached"}
        wait_until(lambda: fresh_title(client, only_cached) == "new")
        assert len(model.calls) == 2

    async def test_for_coroutines_too(self, async_rows: None, model: StandIn) -> None:
        client = make_client(model, async_client=True)
        await astore_and_let_expire(model, client, cache_stale_while_revalidate=60)
        model.latency = 1
        with llmcache.capture() as calls:
            assert (await client.create(**CALL, **REVALIDATE)).title == "old"
            assert seen(calls[0]) == ("stale", "durable", False)
            for _ in range(400):
                await asyncio.sleep(0.02)
                if (await client.create(**CALL, **REVALIDATE)).title == "new":
                    break
        assert seen(calls[-1])[0] == "hit"
        assert len(model.calls) == 2

    @served_from_rows
    def test_a_decorated_function(self) -> None:
        asked: list[int] = []

        @llmcache.cached(ttl=TTL, stale_while_revalidate=60, exclude=["asked"])
        def count() -> int:
            asked.append(1)
            return len(asked)

        assert count() == 1
        wait_until(lambda: not Lease.objects.exclude(token="").exists())
        time.sleep(TTL)
        with llmcache.capture() as calls, llmcache.override(ttl=60):
            assert count() == 1
        assert calls[0].outcome == "stale"
        wait_until(lambda: count() == 2)
        assert len(asked) == 2

    @served_from_rows
    @pytest.mark.parametrize("method", ["create_iterable", "create_partial"])
    def test_a_stream(self, model: StandIn, method: str) -> None:
        client = make_client(model)
        create = getattr(client, method)
        single = {"tasks": [OLD]} if method == "create_iterable" else OLD
        model.behaviour.answer_with = single
        old = list(create(**CALL, cache_ttl=TTL, cache_stale_while_revalidate=60))
        time.sleep(TTL)
        model.behaviour.answer_with = {"tasks": [NEW]} if method == "create_iterable" else NEW
        with llmcache.capture() as calls:
            assert list(create(**CALL, **REVALIDATE))[-1] == old[-1]
        assert calls[0].outcome == "stale"
        wait_until(lambda: list(create(**CALL, **REVALIDATE))[-1].title == "new")
        assert len(model.calls) == 2

    @served_from_rows
    def test_one_asks_however_many_threads_call(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        model.latency = 1
        titles: list[str] = []
        threads = [
            threading.Thread(
                target=lambda: titles.append(client.create(**CALL, **REVALIDATE).title)
            )
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(titles) == 50
        wait_until(lambda: fresh_title(client, CALL | {"cache_mode": "only-if-cached"}) == "new")
        assert len(model.calls) == 2

    async def test_one_asks_however_many_coroutines_call(
        self, async_rows: None, model: StandIn
    ) -> None:
        client = make_client(model, async_client=True)
        await astore_and_let_expire(model, client, cache_stale_while_revalidate=60)
        model.latency = 1
        answers = await asyncio.gather(*[client.create(**CALL, **REVALIDATE) for _ in range(50)])
        assert {answer.title for answer in answers} == {"old"}
        await asyncio.sleep(2)
        assert (await client.create(**CALL, **REVALIDATE)).title == "new"
        assert len(model.calls) == 2

    @served_from_rows
    def test_one_asks_however_many_processes_call(self, model: StandIn, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "STALE_WHILE_REVALIDATE": 60}
        client = make_client(model)
        store_and_let_expire(model, client.create, **CHILDS)
        model.latency = 3
        order = {"base_url": model.url, "times": 3, "linger": 6}
        receivers = [child.start(order | {"llmcache_settings": settings.LLMCACHE}) for _ in "12"]
        found = [each for receiver in receivers for each in child.receive(receiver)]
        assert [outcome for outcome, _, _ in found] == ["stale"] * 6
        assert len(model.calls) == 2
        assert fresh_title(client, CALL | CHILDS | {"cache_mode": "only-if-cached"}) == "new"

    @served_from_rows
    def test_not_after_its_window(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        with llmcache.capture() as calls:
            short = {"cache_stale_while_revalidate": 0.05}
            assert client.create(**CALL, **short).title == "new"
        assert calls[0].outcome == "miss"

    @served_from_rows
    def test_not_unless_asked_for(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        with llmcache.capture() as calls:
            assert client.create(**CALL).title == "new"
        assert calls[0].outcome == "miss"

    @served_from_rows
    @pytest.mark.parametrize("wish", ["client", "settings", "override"])
    def test_may_be_wished_for_anywhere(self, model: StandIn, settings: Any, wish: str) -> None:
        window: dict[str, Any] = {"stale_while_revalidate": 60}
        nothing: dict[str, Any] = {}
        client = make_client(model, **(window if wish == "client" else nothing))
        if wish == "settings":
            settings.LLMCACHE = {"CACHE": None, "STALE_WHILE_REVALIDATE": 60}
        with llmcache.override(**(window if wish == "override" else nothing)):
            store_and_let_expire(model, client.create)
            with llmcache.capture() as calls:
                client.create(**CALL, cache_ttl=60)
        assert calls[0].outcome == "stale"
        wait_until(lambda: len(model.calls) == 2)

    @served_from_rows
    def test_a_failing_refresh_is_only_logged(
        self, model: StandIn, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        model.fail_with = 400
        assert client.create(**CALL, **REVALIDATE).title == "old"
        wait_until(lambda: "was not refreshed" in caplog.text)
        model.fail_with = None
        wait_until(lambda: client.create(**CALL, **REVALIDATE).title == "new")

    @served_from_rows
    def test_an_invalidated_entry_is_not_served(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        llmcache.invalidate(everything=True)
        with llmcache.capture() as calls:
            assert client.create(**CALL, **REVALIDATE).title == "new"
        assert calls[0].outcome == "miss"

    @served_from_rows
    def test_a_refresh_does_not_bring_back_what_was_invalidated(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        model.latency = 1
        client.create(**CALL, **REVALIDATE)
        wait_until(lambda: len(model.calls) == 2)
        llmcache.invalidate(everything=True)
        wait_until(lambda: not Lease.objects.exclude(token="").exists())
        assert not durable.entries().exists()


@served_from_rows
class TestHandingOver:
    def test_whoever_is_named_is_told_the_key(
        self, model: StandIn, settings: Any, told: list[str]
    ) -> None:
        settings.LLMCACHE = {"CACHE": None, "REFRESH": f"{__name__}.take"}
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        for _ in range(5):
            assert client.create(**CALL, **REVALIDATE).title == "old"
        wait_until(lambda: told)
        time.sleep(0.5)
        assert told == [llmcache.key_for(client, **CALL)]
        assert len(model.calls) == 1

    @pytest.mark.parametrize("name", ["refuse", "fail"])
    def test_who_does_not_take_it_leaves_it_to_a_thread(
        self, model: StandIn, settings: Any, told: list[str], name: str
    ) -> None:
        settings.LLMCACHE = {"CACHE": None, "REFRESH": f"{__name__}.{name}"}
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        assert client.create(**CALL, **REVALIDATE).title == "old"
        wait_until(lambda: len(model.calls) == 2)
        wait_until(lambda: client.create(**CALL, **REVALIDATE).title == "new")
        # (who had looked before the new answer was stored may have told once more)
        assert set(told) == {llmcache.key_for(client, **CALL)}
        assert len(model.calls) == 2

    def test_who_is_named_and_cannot_be_found_leaves_it_to_a_thread(
        self, model: StandIn, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.LLMCACHE = {"CACHE": None, "REFRESH": "nowhere.to_be.found"}
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        assert client.create(**CALL, **REVALIDATE).title == "old"
        wait_until(lambda: client.create(**CALL, **REVALIDATE).title == "new")
        assert len(model.calls) == 2
        assert "could not be handed over: LLMCACHE['REFRESH'] must be None or" in caplog.text


@pytest.fixture
def told() -> list[str]:
    _told.clear()
    return _told


def fresh_title(client: Any, call: dict[str, Any]) -> str | None:
    try:
        title: str = client.create(**call).title
    except llmcache.CacheMiss:
        return None
    return title


def take(key: str) -> bool:
    _told.append(key)
    return True


def refuse(key: str) -> bool:
    _told.append(key)
    return False


def fail(key: str) -> bool:
    _told.append(key)
    raise ConnectionError("the broker is down")
