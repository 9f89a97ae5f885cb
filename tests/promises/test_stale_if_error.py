"""Stale answers (RFC 5861): served when the provider fails, and where the mode allows it."""

from __future__ import annotations

import threading
import time
from typing import Any

import instructor
import pytest

import llmcache
from llmcache.removal import expire
from project.standin.server import StandIn
from tests.support.backends import Backend
from tests.support.clients import CALL, make_client
from tests.support.stale import (
    OLD,
    REVALIDATE,
    TTL,
    astore_and_let_expire,
    seen,
    served_from_rows,
    store_and_let_expire,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

IF_ERROR: dict[str, Any] = {"cache_ttl": 60, "cache_stale_if_error": 60}

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
