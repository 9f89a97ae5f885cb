"""Stale answers (RFC 5861): served while a new one is fetched, and when the provider fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import instructor
import pytest

import llmcache
from llmcache.models import Lease
from llmcache.removal import expire
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support import child
from tests.support.backends import Backend
from tests.support.clients import CALL, make_client
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

OLD, NEW = {"title": "old", "priority": 1}, {"title": "new", "priority": 2}

REVALIDATE: dict[str, Any] = {"cache_ttl": 60, "cache_stale_while_revalidate": 60}

IF_ERROR: dict[str, Any] = {"cache_ttl": 60, "cache_stale_if_error": 60}

# What the processes of `child` ask.
CHILDS = {"messages": [{"role": "user", "content": "The printer is on fire."}]}

TTL = 0.3  # seconds, of what is to be stale

served_from_rows = pytest.mark.django_db(transaction=True)


def store_and_let_expire(model: StandIn, create: Callable[..., Any], **windows: Any) -> None:
    """An old answer in the store, expired; the model has a new one."""
    model.behaviour.answer_with = OLD
    create(**CALL | windows, cache_ttl=TTL)
    await_expiry(model)


async def astore_and_let_expire(model: StandIn, client: Any, **windows: Any) -> None:
    model.behaviour.answer_with = OLD
    await client.create(**CALL, **windows, cache_ttl=TTL)
    await asyncio.to_thread(await_expiry, model)


def await_expiry(model: StandIn) -> None:
    wait_until(lambda: not Lease.objects.using(alias()).exclude(token="").exists())
    time.sleep(TTL + 0.2)
    model.behaviour.answer_with = NEW


def alias() -> str:
    return durable.entries().db


def seen(call: Any) -> tuple[str, str | None, bool]:
    return str(call.outcome), call.tier and str(call.tier), call.stored


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


FAILURES: dict[str, dict[str, Any]] = {
    "429": {"fail_with": 429},
    "500": {"fail_with": 500},
    "503": {"fail_with": 503},
    "529": {"fail_with": 529},
    "a timeout": {"latency": 3},
}


class TestIfError:
    @pytest.mark.parametrize("failure", ["503"])
    def test_is_served_when_the_provider_fails(
        self, backend: Backend, model: StandIn, failure: str
    ) -> None:
        self.check(model, failure)

    @served_from_rows
    @pytest.mark.parametrize("failure", FAILURES)
    def test_each_failure_of_the_provider(self, model: StandIn, failure: str) -> None:
        self.check(model, failure)

    def check(self, model: StandIn, failure: str) -> None:
        client = make_client(model, max_retries=0, timeout=1)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        for name, value in FAILURES[failure].items():
            setattr(model, name, value)
        with llmcache.capture() as calls:
            assert client.create(**CALL, **IF_ERROR).title == "old"
        assert seen(calls[0]) == ("stale", "durable", False)
        assert "the provider failed" in calls[0].reason
        model.fail_with, model.latency = None, 0
        assert client.create(**CALL, **IF_ERROR).title == "new"

    @served_from_rows
    def test_no_connection(self, model: StandIn) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.stop()
        assert client.create(**CALL, **IF_ERROR).title == "old"

    async def test_for_coroutines_too(self, async_rows: None, model: StandIn) -> None:
        client = make_client(model, async_client=True, max_retries=0)
        await astore_and_let_expire(model, client, cache_stale_if_error=60)
        model.fail_with = 503
        with llmcache.capture() as calls:
            assert (await client.create(**CALL, **IF_ERROR)).title == "old"
        assert seen(calls[0]) == ("stale", "durable", False)

    @served_from_rows
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    def test_not_for_errors_of_the_callers_making(self, model: StandIn, status: int) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.fail_with = status
        with llmcache.capture() as calls, pytest.raises(Exception, match=str(status)):
            client.create(**CALL, **IF_ERROR)
        assert calls[0].outcome == "miss"

    @served_from_rows
    def test_not_for_answers_that_do_not_validate(self, model: StandIn) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.behaviour.answer_with = {"title": None}
        with pytest.raises(instructor.core.InstructorRetryException):
            client.create(**CALL, **IF_ERROR)

    @served_from_rows
    def test_not_after_its_window_and_not_unless_asked_for(self, model: StandIn) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.fail_with = 503
        for window in ({"cache_stale_if_error": 0.05}, {}):
            with pytest.raises(Exception, match="503"):
                client.create(**CALL, **window)

    @served_from_rows
    @pytest.mark.parametrize("mode", ["reload", "no-store"])
    def test_not_for_who_wants_a_new_answer(self, model: StandIn, mode: str) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.fail_with = 503
        with pytest.raises(Exception, match="503"):
            client.create(**CALL, **IF_ERROR, cache_mode=mode)

    @served_from_rows
    def test_a_decorated_function(self) -> None:
        trouble: list[Exception] = []

        @llmcache.cached(ttl=TTL, stale_if_error=60, exclude=["trouble"])
        def ask() -> int:
            if trouble:
                raise trouble[0]
            return 1

        ask()
        time.sleep(TTL)
        trouble.append(TimeoutError())
        with llmcache.capture() as calls:
            assert ask() == 1
        assert calls[0].outcome == "stale"
        trouble[0] = ValueError("of the function itself")
        with pytest.raises(ValueError, match="of the function itself"):
            ask()

    @served_from_rows
    def test_a_stream_that_fails_before_its_first_item(self, model: StandIn) -> None:
        client = make_client(model, max_retries=0)
        model.behaviour.answer_with = {"tasks": [OLD]}
        list(client.create_iterable(**CALL, cache_ttl=TTL, cache_stale_if_error=60))
        time.sleep(TTL)
        model.fail_with = 503
        with llmcache.capture() as calls:
            [item] = client.create_iterable(**CALL, **IF_ERROR)
        assert item.title == "old"
        assert calls[0].outcome == "stale"

    @served_from_rows
    @pytest.mark.parametrize("meanwhile", [False, True], ids=["before", "while it is asked"])
    def test_an_invalidated_entry_is_not_served(self, model: StandIn, meanwhile: bool) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        model.fail_with, model.latency = 503, 1
        errors: list[Exception] = []

        def call() -> None:
            try:
                client.create(**CALL, **IF_ERROR)
            except Exception as error:  # noqa: BLE001 - which one is told below
                errors.append(error)

        thread = threading.Thread(target=call)
        if not meanwhile:
            llmcache.invalidate(everything=True)
        thread.start()
        wait_until(lambda: len(model.calls) == 2)
        if meanwhile:
            llmcache.invalidate(everything=True)
        thread.join()
        assert len(errors) == 1
        assert "503" in str(errors[0])


@served_from_rows
class TestModes:
    @pytest.mark.parametrize("window", [0, 60])
    def test_force_cache_serves_what_has_expired_and_asks_nobody(
        self, model: StandIn, window: int
    ) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=window)
        with llmcache.capture() as calls:
            assert client.create(**CALL, cache_mode="force-cache").title == "old"
        assert seen(calls[0]) == ("stale", "durable", False)
        assert len(model.calls) == 1

    def test_only_if_cached_asks_nobody_either(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        only = {"cache_mode": "only-if-cached"}
        assert client.create(**CALL, **REVALIDATE, **only).title == "old"
        time.sleep(0.5)
        assert len(model.calls) == 1
        with pytest.raises(llmcache.CacheMiss):
            client.create(**CALL, **only)

    def test_the_expiry_keeps_it_as_long_as_it_may_be_served(self, model: StandIn) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_if_error=2)
        assert expire.expire_entries() == 0
        assert client.create(**CALL, cache_mode="force-cache").title == "old"
        time.sleep(2)
        assert expire.expire_entries() == 1


@served_from_rows
class TestWrongSettings:
    """Nothing stale is served by them; all else goes on."""

    @pytest.mark.parametrize("name", ["STALE_WHILE_REVALIDATE", "STALE_IF_ERROR"])
    def test_what_is_fresh_is_served(self, model: StandIn, settings: Any, name: str) -> None:
        client = make_client(model)
        client.create(**CALL)
        settings.LLMCACHE = {"CACHE": None, name: "5 minutes"}
        with llmcache.capture() as calls:
            client.create(**CALL)
        assert seen(calls[0]) == ("hit", "durable", False)

    def test_what_has_expired_is_a_miss_that_says_why(self, model: StandIn, settings: Any) -> None:
        client = make_client(model)
        store_and_let_expire(model, client.create, cache_stale_while_revalidate=60)
        settings.LLMCACHE = {"CACHE": None, "STALE_WHILE_REVALIDATE": "5 minutes"}
        with llmcache.capture() as calls:
            assert client.create(**CALL).title == "new"
        assert seen(calls[0]) == ("miss", None, False)
        assert "LLMCACHE['STALE_WHILE_REVALIDATE'] must be" in calls[0].reason

    def test_the_providers_error_is_raised_as_it_is(self, model: StandIn, settings: Any) -> None:
        client = make_client(model, max_retries=0)
        store_and_let_expire(model, client.create, cache_stale_if_error=60)
        settings.LLMCACHE = {"CACHE": None, "STALE_IF_ERROR": "5 minutes"}
        model.fail_with = 503
        with llmcache.capture() as calls, pytest.raises(Exception, match="503"):
            client.create(**CALL)
        assert "raised; a setting is wrong: LLMCACHE['STALE_IF_ERROR'] must" in calls[0].reason


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


_told: list[str] = []


@pytest.fixture
def told() -> list[str]:
    _told.clear()
    return _told


def take(key: str) -> bool:
    _told.append(key)
    return True


def refuse(key: str) -> bool:
    _told.append(key)
    return False


def fail(key: str) -> bool:
    _told.append(key)
    raise ConnectionError("the broker is down")


@pytest.fixture
def async_rows(transactional_db: None) -> None:
    """Rows that other threads see."""


def fresh_title(client: Any, call: dict[str, Any]) -> str | None:
    try:
        title: str = client.create(**call).title
    except llmcache.CacheMiss:
        return None
    return title
