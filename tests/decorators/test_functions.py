"""`llmcache.cached` on functions: what is remembered of which."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync

import llmcache
from llmcache import signals
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.decorators.request import FunctionRequest
from llmcache.store.rows import tier as durable
from tests.support.decorated import (
    aextract,
    anything,
    asked,
    extract,
    note,
    outcomes,
    trouble,
)
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


class TestFunctions:
    def test_the_function_is_called_once(self) -> None:
        with llmcache.capture() as calls:
            answers = [extract(1), extract(1), extract(2)]
        assert asked == [(1, "fire", False), (2, "fire", False)]
        assert outcomes(calls) == ["miss", "hit", "miss"]
        assert answers[0] == answers[1] != answers[2]
        assert type(answers[1]) is Ticket
        assert [call.stored for call in calls] == [True, False, True]
        assert calls[0].key == calls[1].key == extract.key(1)
        assert calls[0].model == "tests.support.decorated.extract"
        assert calls[1].tier == "durable"

    def test_coroutine_functions_too(self) -> None:
        async def ask() -> list[Ticket]:
            return [await aextract(1), await aextract(1), await aextract(2)]

        with llmcache.capture() as calls:
            answers = asyncio.run(ask())
        assert outcomes(calls) == ["miss", "hit", "miss"]
        assert answers[0] == answers[1] != answers[2]
        assert len(asked) == 2

    def test_every_way_to_pass_arguments_is_one_entry(self) -> None:
        extract(1, "fire", urgent=False)
        extract(number=1, text="fire")
        extract(1)
        assert len(asked) == 1

    @pytest.mark.parametrize(
        "other",
        [{"number": 2}, {"number": 1.0}, {"number": True}, {"number": "1"}, {"urgent": True}],
        ids=str,
    )
    def test_other_arguments_are_another_entry(self, other: dict[str, Any]) -> None:
        arguments: dict[str, Any] = {"number": 1, "text": "fire"}
        extract(**arguments)
        extract(**arguments | other)
        assert len(asked) == 2

    def test_the_row_tells_what_was_asked(self) -> None:
        extract(1, urgent=True)
        row: Any = durable.entries().get()
        assert (row.provider, row.mode, row.endpoint) == ("python", "cached", "version=1")
        assert row.model == "tests.support.decorated.extract"
        assert row.response_model == "tests.support.ticket.Ticket"
        request = unseal(REQUEST, row.key, bytes(row.request)).body
        assert b'"parameters":{"number":1,"text":"fire","urgent":true}' in request
        assert row.latency > 0

    def test_no_argument_is_at_rest_where_the_settings_say_so(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"STORE_REQUESTS": "digest"}
        extract(1, "secret")
        assert durable.entries().get().request is None

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), StopIteration(3)])
    def test_an_error_of_the_function_is_raised_as_it_is(self, error: BaseException) -> None:
        trouble.append(error)
        with pytest.raises(type(error)) as caught:
            extract(1)
        assert caught.value is error
        with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
            async_to_sync(aextract)(1)
        assert not durable.entries().exists()

    def test_arguments_that_do_not_fit_raise_as_they_do_without_a_cache(self) -> None:
        wrong: Any = extract
        for ask in (lambda: wrong(), lambda: wrong(1, nothing=2), lambda: wrong.key()):
            with pytest.raises(TypeError, match="argument"):
                ask()
        assert asked == []

    def test_none_is_an_answer(self) -> None:
        assert nothing(1) is None
        assert nothing(1) is None
        assert asked == [(1,)]

    @pytest.mark.parametrize("value", [0, "", [], False, {}])
    def test_what_is_not_true_is_an_answer(self, value: Any) -> None:
        assert anything(value) == anything(value) == value
        assert len(asked) == 1

    def test_in_threads(self) -> None:
        extract(1)
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(extract, [1] * 20))
        assert {answer.title for answer in answers} == {"1 fire 1"}
        assert len(asked) == 1

    def test_a_receiver_of_the_signal_hears_of_each_call(self) -> None:
        seen = []

        def receive(sender: Any, call: Any, **_: Any) -> None:
            seen.append((sender, str(call.outcome)))

        signals.call_answered.connect(receive)
        try:
            extract(1)
            extract(1)
        finally:
            signals.call_answered.disconnect(receive)
        assert seen == [(FunctionRequest, "miss"), (FunctionRequest, "hit")]

    def test_it_may_call_itself(self) -> None:
        assert factorial(5) == 120
        assert asked == [(5,), (4,), (3,), (2,), (1,)]
        assert factorial(6) == 720
        assert len(asked) == 6


@llmcache.cached
def nothing(number: int) -> None:
    note(number)


@llmcache.cached
def factorial(number: int) -> int:
    note(number)
    return number * factorial(number - 1) if number > 1 else 1
