"""`llmcache.cached` as a user writes it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, assert_type

import instructor
import pytest
from asgiref.sync import async_to_sync
from celery import shared_task
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel

import llmcache
from llmcache import signals
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.decorators import CachedFunction
from llmcache.decorators.request import FunctionRequest
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client, make_sdk
from tests.support.paths import ROOT
from tests.support.ticket import Ticket

if TYPE_CHECKING:
    from somewhere import Nothing  # type: ignore[import-not-found]

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

# What the functions below were called with, and what they are to raise.
asked: list[Any] = []
trouble: list[BaseException] = []


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    yield
    asked.clear()
    trouble.clear()


def note(*arguments: Any) -> None:
    asked.append(arguments)
    if trouble:
        raise trouble[0]


def told(calls: list[Any]) -> list[tuple[str, str]]:
    return [(call.outcome, call.reason) for call in calls]


def outcomes(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


@llmcache.cached
def extract(number: int, text: str = "fire", *, urgent: bool = False) -> Ticket:
    """Extract a ticket."""
    note(number, text, urgent)
    return Ticket(title=f"{number} {text} {len(asked)}")


@llmcache.cached()
async def aextract(number: int, text: str = "fire") -> Ticket:
    note(number, text)
    await asyncio.sleep(0)
    return Ticket(title=f"{number} {text} {len(asked)}")


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
        assert calls[0].model == f"{__name__}.extract"
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
        assert row.model == f"{__name__}.extract"
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
def anything(value: Any) -> Any:
    note(value)
    return value


@llmcache.cached
def factorial(number: int) -> int:
    note(number)
    return number * factorial(number - 1) if number > 1 else 1


@llmcache.cached
def untyped(number):
    note(number)
    return number


@llmcache.cached
def unresolved(number: int) -> Nothing:
    note(number)
    return number


@llmcache.cached
def half_resolved(number: Nothing) -> int:
    note(number)
    return 1


@llmcache.cached
def unvalidated(number: int) -> Callable[[], int]:
    note(number)
    return lambda: number


@llmcache.cached
def quoted(number: int) -> list[Later]:
    note(number)
    return [Later(number=number)]


class Later(BaseModel):
    number: int


@llmcache.cached
def annotated(number: int) -> Annotated[int, AfterValidator(abs)]:
    note(number)
    return number


class TestAnnotations:
    @pytest.mark.parametrize(
        ("function", "why"),
        [
            (untyped, "there is no annotation"),
            (unresolved, "'Nothing' cannot be resolved"),
            (unvalidated, "cannot validate"),
        ],
    )
    def test_without_one_the_function_is_called(
        self, function: Any, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with llmcache.capture() as calls, caplog.at_level(logging.WARNING, "llmcache"):
            function(1)
            function(1)
        assert len(asked) == 2
        assert outcomes(calls) == ["bypass"] * 2
        assert calls[0].reason_code == "return-type"
        assert why in calls[0].reason
        assert not durable.entries().exists()
        with pytest.raises(llmcache.UncacheableRequest, match=why):
            function.key(1)

    def test_those_of_the_arguments_need_not_be_resolved(self) -> None:
        assert half_resolved(1) == half_resolved(1)
        assert len(asked) == 1

    def test_one_may_name_what_is_defined_later(self) -> None:
        assert quoted(1) == quoted(1) == [Later(number=1)]
        assert len(asked) == 1
        assert durable.entries().get().response_model == f"list[{__name__}.Later]"

    def test_one_may_have_metadata(self) -> None:
        assert annotated(1) == annotated(1) == 1
        assert len(asked) == 1
        assert durable.entries().get().response_model == "builtins.int"
        # It would come back different.
        with llmcache.capture() as calls:
            assert annotated(-1) == annotated(-1) == -1
        assert [call.stored for call in calls] == [False, False]

    def test_an_answer_of_another_type_is_handed_on_and_not_stored(self) -> None:
        @llmcache.cached
        def wrong() -> int:
            note()
            return "1"  # type: ignore[return-value]

        with llmcache.capture() as calls:
            assert [str(wrong()), type(wrong())] == ["1", str]
        assert (
            told(calls)
            == [("miss", "the answer cannot be stored: it would come back different")] * 2
        )

    def test_a_changed_one_misses(self) -> None:
        def make(annotation: Any) -> Any:
            def changing() -> Any:
                note()
                return 1

            changing.__annotations__["return"] = annotation
            return llmcache.cached(changing)

        class One(BaseModel):
            number: int

        class Other(BaseModel):
            number: int
            more: str = ""

        One.__qualname__ = Other.__qualname__ = "One"
        keys = [make(each).key() for each in (int, str, int | None, list[int], One, Other)]
        assert len(set(keys)) == 6
        assert make(int).key() == keys[0]


class TestArguments:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    @settings(deadline=None, max_examples=50)
    def test_equal_ones_have_one_key(self, value: Any) -> None:
        assert anything.key(value) == anything.key(copy.deepcopy(value))

    def test_the_order_inside_of_them_counts(self) -> None:
        assert anything.key({"a": 1, "b": 2}) != anything.key({"b": 2, "a": 1})

    def test_one_without_a_canonical_form_is_a_bypass(self) -> None:
        with llmcache.capture() as calls:
            anything([object()])
        assert outcomes(calls) == ["bypass"]
        assert "value[0]: builtins.object has no canonical form" in calls[0].reason
        assert "exclude=('value',)" in calls[0].reason

    def test_excluded_ones_do_not_count_and_are_not_kept(self) -> None:
        @llmcache.cached(exclude=("client",))
        def ask(client: object, text: str) -> str:
            note(client, text)
            return text

        ask(object(), "a")
        ask(object(), text="a")
        ask("secret", "b")
        assert len(asked) == 2
        for row in durable.entries():
            request = unseal(REQUEST, row.key, bytes(row.request or b"")).body
            assert b"client" not in request

    def test_all_kinds_of_parameters(self) -> None:
        @llmcache.cached(exclude=("trace",))
        def ask(first: int, /, *rest: int, flag: bool = True, **options: Any) -> int:
            note(first, rest, flag, options)
            return first

        ask(1, 2, 3, flag=True, colour="red", trace="x")
        ask(1, 2, 3, colour="red", trace="y")
        assert len(asked) == 1
        for other in (
            ask.key(1, 2),
            ask.key(1, 3, 2, colour="red"),
            ask.key(1, 2, 3, colour="blue"),
            ask.key(1, 2, 3),
        ):
            assert other != ask.key(1, 2, 3, colour="red")

    def test_one_that_changes_before_the_call_begins_is_not_stored(self) -> None:
        @llmcache.cached
        async def count(items: list[int]) -> int:
            return len(items)

        async def ask() -> int:
            items = [1]
            coroutine: Any = count(items)
            items.append(2)
            result: int = await coroutine
            return result

        with llmcache.capture() as calls:
            assert asyncio.run(ask()) == 2
        assert calls[0].stored is False
        assert "changed" in calls[0].reason

    def test_one_that_the_function_changes_is_not_stored_as_a_hit_would_not_change_it(self) -> None:
        @llmcache.cached
        def use_up(items: list[int]) -> int:
            note()
            return len([items.pop() for _ in range(len(items))])

        with llmcache.capture() as calls:
            assert use_up([1, 2]) == use_up([1, 2]) == 2
        assert len(asked) == 2
        assert "changed while the function ran" in calls[0].reason
        assert not durable.entries().exists()


class TestName:
    def test_a_function_of_another_name_is_another(self) -> None:
        def one(number: int) -> int:
            return number

        def other(number: int) -> int:
            return number

        assert llmcache.cached(one).key(1) != llmcache.cached(other).key(1)
        assert llmcache.cached(one).key(1) == llmcache.cached(one).key(1)

    def test_the_version_counts_with_its_type(self) -> None:
        def one() -> int:
            return 1

        versions: tuple[int | str, ...] = (1, 2, "1", "prompt 2")
        keys = {llmcache.cached(version=version)(one).key() for version in versions}
        assert len(keys) == 4
        assert llmcache.cached(version=1)(one).key() == llmcache.cached(one).key()

    def test_what_a_function_closes_over_counts(self) -> None:
        def make(model: Any) -> CachedFunction[[str], str]:
            @llmcache.cached
            def ask(text: str) -> str:
                note(text)
                return f"{model} {text}"

            return ask

        assert [make("a")("x"), make("b")("x"), make("a")("x")] == ["a x", "b x", "a x"]
        assert len(asked) == 2
        with llmcache.capture() as calls:
            make(object())("x")
        assert outcomes(calls) == ["bypass"]
        assert "model: builtins.object has no canonical form" in calls[0].reason

    def test_what_a_function_closes_over_may_be_excluded(self) -> None:
        seen: list[str] = []

        @llmcache.cached(exclude=["seen"])
        def ask(text: str) -> str:
            seen.append(text)
            return text

        ask("a")
        ask("a")
        assert seen == ["a"]

    def test_modules_functions_and_classes_count_by_name_and_itself_not(self) -> None:
        import json

        own = Ticket

        @llmcache.cached
        def count(number: int) -> int:
            note(number)
            json.loads("1")
            assert own.__name__
            return 0 if number == 0 else count(number - 1)

        count(2)
        count(2)
        assert len(asked) == 3

    def test_lambdas_of_one_module_are_not_taken_for_each_other(self) -> None:
        def typed(function: Any) -> Any:
            function.__annotations__["return"] = int
            return llmcache.cached(function)

        double, triple = typed(lambda number: number * 2), typed(lambda number: number * 3)
        assert [double(1), triple(1), double(1)] == [2, 3, 2]
        again = typed(lambda number: number * 2)
        assert again.key(1) == double.key(1)

    def test_below_other_decorators_the_function_itself_is_looked_at(self) -> None:
        import functools

        def retried(function: Any) -> Any:
            hook = object()

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                assert hook
                return function(*args, **kwargs)

            return wrapper

        @llmcache.cached
        @retried
        def ask(text: str) -> str:
            note(text)
            return text

        assert ask("a") == ask("a") == "a"
        assert len(asked) == 1


def run_script(path: Path, program: str, database: Path) -> str:
    path.write_text(program)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE": str(database),
    }
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


SCRIPT = """
import os
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llmcache"],
    LLMCACHE={"CACHE": None},
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]
    }},
)
import llmcache

@llmcache.cached
def ask(number: int) -> str:
    return str(number)

django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
with llmcache.capture() as calls:
    assert ask(1) == "1"
print(calls[0].outcome, calls[0].reason)
"""


@pytest.mark.slow
def test_another_interpreter_finds_the_entry_and_another_script_does_not(tmp_path: Path) -> None:
    database = tmp_path / "db.sqlite3"
    script = tmp_path / "script.py"
    assert run_script(script, SCRIPT, database) == "miss"
    assert run_script(script, SCRIPT, database) == "hit"
    assert run_script(tmp_path / "other.py", SCRIPT, database) == "miss"


class TestPolicy:
    def test_override_wins(self) -> None:
        with llmcache.override(namespace="tenant:7", tags=["import"]):
            extract(1)
            in_tenant = extract.key(1)
        extract(1)
        assert len(asked) == 2
        assert extract.key(1) != in_tenant
        row: Any = durable.entries().get(key=in_tenant)
        assert row.namespace == "tenant:7"
        assert [tag.tag for tag in row.tags.all()] == ["import"]

    def test_modes(self) -> None:
        with llmcache.override(mode="only-if-cached"), pytest.raises(llmcache.CacheMiss):
            extract(1)
        extract(1)
        with llmcache.override(mode="only-if-cached"):
            extract(1)
        with llmcache.override(mode="no-store"):
            extract(1)
        with llmcache.override(mode="reload"):
            extract(1)
        assert len(asked) == 3

    def test_ttl_namespace_and_tags(self) -> None:
        @llmcache.cached(ttl=timedelta(hours=1), namespace="support", tags=["a", "b"])
        def ask() -> int:
            return 1

        ask()
        row: Any = durable.entries().get()
        assert row.expires_at - row.created_at < timedelta(hours=1, seconds=10)
        assert row.namespace == "support"
        assert {tag.tag for tag in row.tags.all()} == {"a", "b"}

    def test_a_ttl_of_zero_stores_nothing(self) -> None:
        with llmcache.capture() as calls, llmcache.override(ttl=0):
            extract(1)
        assert told(calls) == [("miss", "cache_ttl is 0")]

    def test_the_settings_are_read_at_each_call(self, settings: Any) -> None:
        extract(1)
        settings.LLMCACHE = settings.LLMCACHE | {"NAMESPACE": "other"}
        extract(1)
        assert len(asked) == 2

    def test_settings_that_are_off_are_a_bypass(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"NAMESPACE": ""}
        with llmcache.capture() as calls:
            assert extract(1).title == "1 fire 1"
        assert outcomes(calls) == ["bypass"]
        assert "NAMESPACE" in calls[0].reason

    def test_a_rollback_of_the_caller_keeps_what_was_paid_for(self, database: str) -> None:
        with transaction.atomic(using=database):
            extract(1)
            transaction.set_rollback(True, using=database)
        for _ in range(100):
            if durable.entries().exists():
                break
            threading.Event().wait(0.05)
        extract(1)
        assert len(asked) == 1

    def test_on_every_database(self, database: str) -> None:
        extract(1)
        extract(1)
        async_to_sync(aextract)(1)
        async_to_sync(aextract)(1)
        assert len(asked) == 2
        assert extract.invalidate(1).entries == 1
        extract(1)
        assert len(asked) == 3

    def test_what_admit_does_not_admit_is_not_stored(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit"}
        with llmcache.capture() as calls:
            extract(1, "poor")
            extract(1, "good")
        assert [call.stored for call in calls] == [False, True]

    def test_admit_is_asked_about_all_items_of_a_generator(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit_items"}
        with llmcache.capture() as calls:
            assert list(spell("poor")) == ["p", "o", "o", "r"]
            assert list(spell("good")) == ["g", "o", "o", "d"]
        assert [call.stored for call in calls] == [False, True]
        assert "ADMIT" in calls[0].reason

    async def test_and_of_an_asynchronous_one(self, settings: Any) -> None:
        settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit_items"}
        with llmcache.capture() as calls:
            for word in ("poor", "good"):
                assert [letter async for letter in aspell(word)] == list(word)
        assert [call.stored for call in calls] == [False, True]


def admit(answer: Any, completion: Any) -> bool:
    return "poor" not in answer.title


def admit_items(answer: Any, completion: Any) -> bool:
    assert completion is None
    return bool(answer != list("poor"))


class TestTags:
    def tags(self) -> set[str]:
        return {tag.tag for row in durable.entries() for tag in row.tags.all()}

    def test_are_made_from_the_arguments_by_name(self) -> None:
        @llmcache.cached(tags=lambda document_id, **rest: [f"doc:{document_id}", str(rest)])
        def ask(text: str, document_id: int, colour: str = "red") -> str:
            note(text)
            return text

        ask("a", 42)
        assert self.tags() == {"doc:42", "{'text': 'a', 'colour': 'red'}"}
        llmcache.invalidate(tags=["doc:42"])
        ask("a", 42)
        assert len(asked) == 2

    def test_need_not_take_all_arguments(self) -> None:
        @llmcache.cached(tags=lambda document_id, prefix="doc": [f"{prefix}:{document_id}"])
        def ask(document_id: int, text: str) -> str:
            return text

        ask(42, "a")
        assert self.tags() == {"doc:42"}

    @pytest.mark.parametrize(
        "tags",
        [lambda number: [""], lambda number: "doc", lambda number: 1 / 0, lambda number: [1]],
    )
    def test_that_fail_take_nothing_away_and_nothing_is_stored_without_them(
        self, tags: Any
    ) -> None:
        @llmcache.cached(tags=tags)
        def ask(number: int) -> int:
            return number

        with llmcache.capture() as calls:
            assert ask(1) == 1
        assert outcomes(calls) == ["miss"]
        assert "its tags could not be told" in calls[0].reason
        assert not durable.entries().exists()

    def test_are_not_made_for_a_hit(self) -> None:
        made: list[int] = []

        def make(number: int) -> list[str]:
            made.append(number)
            return ["a"]

        @llmcache.cached(tags=make)
        def ask(number: int) -> int:
            return number

        ask(1)
        ask(1)
        assert made == [1]


longest = [9]


def not_too_long(text: str) -> str:
    if len(text) > longest[0]:
        raise ValueError("too long")
    return text


@llmcache.cached
def shortened(text: str) -> Annotated[str, AfterValidator(not_too_long)]:
    return text


class TestOperations:
    def test_reload_asks_and_stores(self) -> None:
        extract(1)
        with llmcache.capture() as calls:
            fresh = extract.reload(1)
        assert outcomes(calls) == ["reload"]
        assert fresh.title == "1 fire 2"
        assert extract(1) == fresh
        assert len(asked) == 2

    async def test_reload_of_a_coroutine_function_is_awaited(self) -> None:
        await aextract(1)
        fresh = await aextract.reload(1)
        assert fresh.title == "1 fire 2"
        assert await aextract(1) == fresh

    def test_invalidate_removes_one_entry(self) -> None:
        extract(1)
        extract(2)
        assert extract.invalidate(number=1).entries == 1
        assert extract.invalidate(1).entries == 0
        extract(1)
        extract(2)
        assert len(asked) == 3

    async def test_ainvalidate(self) -> None:
        await aextract(1)
        result = await aextract.ainvalidate(1)
        assert (result.entries, result.pending) == (1, ())

    def test_all_of_a_function_by_its_name(self) -> None:
        extract(1)
        extract(2)
        anything(1)
        name = f"{__name__}.extract"
        assert llmcache.invalidate(model=name).entries == 2

    def test_by_the_class_of_its_answers(self) -> None:
        extract(1)
        assert llmcache.invalidate(response_model=Ticket).entries == 1

    def test_explain_says_whether_a_call_would_hit(self) -> None:
        explanation = extract.explain(1)
        assert (explanation.outcome, explanation.tier) == ("miss", None)
        assert explanation.reason == "nothing is stored under this key"
        assert explanation.key == extract.key(1)
        assert explanation.model == f"{__name__}.extract"
        extract(1)
        explanation = extract.explain(number=1)
        assert (explanation.outcome, explanation.tier) == ("hit", "durable")
        assert durable.entries().get().hits == 0
        assert len(asked) == 1

    def test_explain_shows_what_sets_a_miss_apart(self) -> None:
        extract(1, "smoke")
        nearest = extract.explain(1, "fire").nearest
        assert nearest is not None
        assert nearest.differing == ("parameters",)
        assert '+  "text": "fire"' in (nearest.differences["parameters"] or "")

    def test_explain_knows_the_object_the_mode_and_the_override(self) -> None:
        Extractor("m").extract("fire")
        assert Extractor("m").extract.explain("fire").outcome == "hit"
        assert Extractor("n").extract.explain("fire").outcome == "miss"
        with llmcache.override(mode="reload"):
            assert Extractor("m").extract.explain("fire").outcome == "reload"
        with llmcache.override(namespace="tenant:7"):
            assert Extractor("m").extract.explain("fire").outcome == "miss"

    def test_explain_says_what_is_passed_by(self) -> None:
        explanation = anything.explain(object())
        assert (explanation.outcome, explanation.key) == ("bypass", "")
        assert "canonical form" in explanation.reason
        with pytest.raises(TypeError):
            extract.explain()  # type: ignore[call-arg]
        assert asked == []

    def test_explain_tells_of_an_entry_that_does_not_validate_any_more(self) -> None:
        shortened("abc")
        assert shortened.explain("abc").outcome == "hit"
        longest[0] = 1
        explanation = shortened.explain("abc")
        longest[0] = 9
        assert explanation.outcome == "miss"
        assert "does not validate any more" in explanation.reason

    async def test_aexplain(self) -> None:
        assert (await aextract.aexplain(1)).outcome == "miss"
        await aextract(1)
        explanation = await aextract.aexplain(1)
        assert (explanation.outcome, explanation.key) == ("hit", aextract.key(1))

    def test_what_has_no_key_cannot_be_invalidated(self) -> None:
        with pytest.raises(llmcache.UncacheableRequest, match="canonical form"):
            anything.invalidate(object())


@dataclass
class Extractor:
    model: str

    @llmcache.cached
    def extract(self, text: str) -> str:
        """Extract."""
        note(self.model, text)
        return f"{self.model} {text}"

    @llmcache.cached
    async def aextract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"


class Validated(BaseModel):
    model: str

    @classmethod
    @llmcache.cached
    def named(cls, text: str) -> str:
        note(text)
        return f"{cls.__name__} {text}"

    @llmcache.cached
    def extract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"


class Plain:
    def __init__(self, model: str) -> None:
        self.model = model

    @llmcache.cached
    def extract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"

    @llmcache.cached(exclude=("self",))
    def shared(self, text: str) -> str:
        note(self.model, text)
        return text

    @llmcache.cached
    @classmethod
    def above(cls, text: str) -> str:
        note(cls, text)
        return f"{cls.__name__} {text}"

    @classmethod
    @llmcache.cached
    def below(cls, text: str) -> str:
        note(cls, text)
        return f"{cls.__name__} {text}"

    @llmcache.cached
    @staticmethod
    def static_above(text: str) -> str:
        note(text)
        return text

    @staticmethod
    @llmcache.cached
    def static_below(text: str) -> str:
        note(text)
        return text


class Heir(Plain):
    @llmcache.cached(exclude=["self"])
    def shared(self, text: str) -> str:
        return f"heir of {super().shared(text)}"


class TestMethods:
    @pytest.mark.parametrize("cls", [Extractor, Validated])
    def test_an_object_with_a_canonical_form_counts_by_it(self, cls: Any) -> None:
        one, same, other = cls(model="a"), cls(model="a"), cls(model="b")
        assert one.extract("x") == same.extract(text="x") == "a x"
        assert other.extract("x") == "b x"
        assert len(asked) == 2
        one.model = "c"
        assert one.extract("x") == "c x"

    def test_any_other_object_is_a_bypass(self) -> None:
        with llmcache.capture() as calls:
            assert Plain("a").extract("x") == "a x"
        assert outcomes(calls) == ["bypass"]
        assert "Plain has no canonical form" in calls[0].reason
        assert "exclude=('self',)" in calls[0].reason

    def test_an_object_may_be_excluded(self) -> None:
        assert Plain("a").shared("x") == Plain("b").shared("x") == "x"
        assert len(asked) == 1
        assert Heir("a").shared("x") == Heir("a").shared("x") == "heir of x"

    def test_operations_know_the_object(self) -> None:
        one = Extractor("a")
        one.extract("x")
        assert one.extract.key("x") == Extractor.extract.key(one, "x")
        assert one.extract.reload("x") == "a x"
        assert len(asked) == 2
        assert one.extract.invalidate("x").entries == 1
        assert Extractor.extract(one, "x") == "a x"
        assert len(asked) == 3

    async def test_coroutine_methods(self) -> None:
        one = Extractor("a")
        assert await one.aextract("x") == await one.aextract("x") == "a x"
        assert len(asked) == 1
        assert (await one.aextract.ainvalidate("x")).entries == 1

    @pytest.mark.parametrize("name", ["above", "below"])
    def test_class_methods_count_by_the_name_of_the_class(self, name: str) -> None:
        for cls in (Plain, Plain, Heir):
            assert getattr(cls, name)("x") == f"{cls.__name__} x"
        assert getattr(Plain("a"), name)("x") == "Plain x"
        assert len(asked) == 2
        assert getattr(Plain, name).key("x") != getattr(Heir, name).key("x")
        assert getattr(Plain, name).invalidate("x").entries == 1

    @pytest.mark.parametrize("name", ["static_above", "static_below"])
    def test_static_methods(self, name: str) -> None:
        assert getattr(Plain, name)("x") == getattr(Plain("a"), name)("x") == "x"
        assert len(asked) == 1
        assert getattr(Plain, name).invalidate("x").entries == 1

    def test_a_class_method_of_a_model_counts_its_schema_too(self) -> None:
        model: Any = Validated
        assert model.named("x") == "Validated x"
        assert model.named("x") == "Validated x"
        assert len(asked) == 1
        before = model.named.key("x")
        model.model_fields["model"].description = "changed"
        model.model_rebuild(force=True)
        try:
            assert model.named.key("x") != before
        finally:
            model.model_fields["model"].description = None
            model.model_rebuild(force=True)

    def test_an_argument_may_be_called_as_a_class_is(self) -> None:
        @llmcache.cached
        def ask(cls: str) -> str:
            return cls

        assert ask.key("a") != ask.key("b")

    def test_a_class_without_a_name_of_its_own_is_a_bypass(self) -> None:
        class Local(Plain):
            pass

        with llmcache.capture() as calls:
            Local("a").above("x")
        assert outcomes(calls) == ["bypass"]
        assert "has no name of its own" in calls[0].reason


# Generators


@llmcache.cached
def spell(word: str) -> Iterator[str]:
    note(word)
    for number, letter in enumerate(word):
        if trouble and number:
            raise trouble[0]
        yield letter
    asked.append("end")


@llmcache.cached
async def aspell(word: str) -> AsyncIterator[str]:
    note(word)
    try:
        for letter in word:
            await asyncio.sleep(0)
            yield letter
    finally:
        asked.append("closed")


@llmcache.cached
def tickets(count: int) -> Generator[Ticket, None, None]:
    note(count)
    yield from (Ticket(title=str(number)) for number in range(count))


@llmcache.cached
def opened(word: str) -> Iterator[str]:
    note(word)
    return iter(word)


@llmcache.cached
def both_ways(start: int) -> Generator[int, int, str]:
    note(start)
    sent = yield start
    yield sent
    return "end"


class TestGenerators:
    def test_items_pass_while_they_come_and_are_replayed(self) -> None:
        stream = spell("abc")
        assert asked == []
        assert next(stream) == "a"
        assert asked == [("abc",)]
        assert list(stream) == ["b", "c"]
        with llmcache.capture() as calls:
            assert list(spell("abc")) == ["a", "b", "c"]
        assert outcomes(calls) == ["hit"]
        assert asked == [("abc",), "end"]

    async def test_asynchronous_ones_too(self) -> None:
        with llmcache.capture() as calls:
            for _ in range(2):
                assert [letter async for letter in aspell("abc")] == ["a", "b", "c"]
        assert outcomes(calls) == ["miss", "hit"]
        assert asked == [("abc",), "closed"]

    def test_items_are_of_the_annotated_class(self) -> None:
        assert list(tickets(2)) == list(tickets(2)) == [Ticket(title="0"), Ticket(title="1")]
        assert list(tickets(0)) == list(tickets(0)) == []
        assert asked == [(2,), (0,)]

    def test_a_function_that_returns_an_iterator(self) -> None:
        assert list(opened("abc")) == list(opened("abc")) == ["a", "b", "c"]
        assert asked == [("abc",)]

    def test_one_that_stops_early_stores_nothing(self) -> None:
        with llmcache.capture() as calls:
            for letter in spell("abc"):
                assert letter == "a"
                break
        assert told(calls) == [("miss", "the stream was not read to its end")]
        assert not durable.entries().exists()

    async def test_an_asynchronous_one_that_stops_early_is_closed(self) -> None:
        stream = aspell("abc")
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        assert asked == [("abc",), "closed"]

    def test_an_error_comes_after_the_items_before_it(self) -> None:
        stream = spell("abc")
        assert next(stream) == "a"
        trouble.append(ValueError("down"))
        with pytest.raises(ValueError, match="down"):
            next(stream)
        trouble.clear()
        assert list(spell("abc")) == ["a", "b", "c"]

    def test_items_that_the_caller_changes_are_stored_as_they_were(self) -> None:
        for ticket in tickets(1):
            ticket.title = "changed"
        assert list(tickets(1)) == [Ticket(title="0")]

    def test_override_holds_for_what_was_called_inside(self) -> None:
        with llmcache.override(namespace="tenant:7"):
            stream = spell("abc")
        list(stream)
        assert durable.entries().get().namespace == "tenant:7"

    def test_operations(self) -> None:
        list(spell("abc"))
        list(spell.reload("abc"))
        assert asked == [("abc",), "end"] * 2
        assert spell.explain("abc").outcome == "hit"
        assert spell.invalidate("abc").entries == 1

    def test_only_if_cached(self) -> None:
        with llmcache.override(mode="only-if-cached"):
            stream = spell("abc")
        with pytest.raises(llmcache.CacheMiss):
            next(stream)
        assert asked == []

    def test_one_that_is_sent_values_is_handed_on_as_it_is(self) -> None:
        with llmcache.capture() as calls:
            stream = both_ways(1)
            assert next(stream) == 1
            assert stream.send(5) == 5
            with pytest.raises(StopIteration) as end:
                next(stream)
        assert end.value.value == "end"
        assert outcomes(calls) == ["bypass"]
        assert "sent" in calls[0].reason

    def test_other_annotations_are_a_bypass(self) -> None:
        @llmcache.cached
        def untyped():
            yield 1

        @llmcache.cached
        def wrong() -> list[int]:  # type: ignore[misc]
            yield 1

        @llmcache.cached
        def unclear() -> Iterable[int]:
            return [1]

        @llmcache.cached
        def generates() -> Iterable[int]:
            yield 1

        with llmcache.capture() as calls:
            assert [list(each()) for each in (untyped, wrong, unclear, generates)] == [[1]] * 4
            assert list(generates()) == [1]
        assert outcomes(calls) == ["bypass", "bypass", "bypass", "miss", "hit"]

    async def test_a_coroutine_that_returns_a_stream_is_a_bypass(self) -> None:
        @llmcache.cached
        async def ask() -> AsyncIterator[str]:
            return aspell("ab")

        with llmcache.capture() as calls:
            assert [letter async for letter in await ask()] == ["a", "b"]
        assert outcomes(calls) == ["bypass", "miss"]


# What it looks like


class TestLooks:
    def test_like_the_function(self) -> None:
        assert extract.__name__ == "extract"  # type: ignore[attr-defined]
        assert extract.__doc__ == "Extract a ticket."
        assert extract.__module__ == __name__
        assert extract.__wrapped__(7).title.startswith("7 ")
        assert list(inspect.signature(extract).parameters) == ["number", "text", "urgent"]
        assert repr(extract) == f"<llmcache.cached {__name__}.extract>"

    def test_like_a_method(self) -> None:
        method = Extractor("a").extract
        assert method.__doc__ == "Extract."
        assert list(inspect.signature(method).parameters) == ["text"]
        assert method.__wrapped__("x") == "a x"
        assert "Extractor(model='a')" in repr(method)

    def test_coroutine_functions_and_generators_can_be_told(self) -> None:
        assert inspect.iscoroutinefunction(aextract)
        assert inspect.iscoroutinefunction(Extractor("a").aextract)
        assert asyncio.iscoroutinefunction(aextract)
        assert not inspect.iscoroutinefunction(extract)
        assert inspect.isgeneratorfunction(spell)
        assert inspect.isasyncgenfunction(aspell)

    def test_it_is_pickled_and_copied_by_name(self) -> None:
        assert pickle.loads(pickle.dumps(extract)) is extract
        assert copy.copy(extract) is extract
        assert copy.deepcopy(extract) is extract
        method = pickle.loads(pickle.dumps(Extractor("a").extract))
        assert method("x") == "a x"

    def test_it_can_be_a_task(self) -> None:
        task = shared_task(name="tests.extract")(extract)
        assert task(1) == task(1)
        assert len(asked) == 1

    def test_types_are_kept(self) -> None:
        assert_type(extract(1), Ticket)
        assert_type(extract.reload(1, urgent=True), Ticket)
        assert_type(extract.key(1), str)
        assert_type(Extractor("a").extract("x"), str)
        assert_type(list(spell("a")), list[str])

        async def ask() -> None:
            assert_type(await aextract(1), Ticket)
            assert_type(await aextract.reload(1), Ticket)
            assert_type(await Extractor("a").aextract("x"), str)

        asyncio.run(ask())
        with pytest.raises(TypeError):
            extract("1", nothing=1)  # type: ignore[call-arg, arg-type]


def sample(number: int) -> int:
    return number


one = Plain("a")


class TestMistakes:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"ttl": -1},
            {"ttl": True},
            {"ttl": "1h"},
            {"tags": "x"},
            {"tags": [1]},
            {"tags": 3},
            {"tags": lambda other: []},
            {"tags": lambda *args: []},
            {"namespace": ""},
            {"exclude": "number"},
            {"exclude": ("other",)},
            {"exclude": (1,)},
            {"exclude": 1},
            {"version": 1.0},
            {"version": True},
            {"version": None},
        ],
        ids=str,
    )
    def test_of_an_argument_are_told_at_once(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(llmcache.InvalidArgument):
            llmcache.cached(**arguments)(sample)

    @pytest.mark.parametrize(
        "what",
        [
            3600,
            Ticket,
            SimpleNamespace(),
            partial(sample, 1),
            extract,
            "x".upper,
            one.__str__,
            one.shared,
        ],
    )
    def test_of_what_is_decorated_are_told_at_once(self, what: Any) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"Put it above|cached already"):
            llmcache.cached(what)

    def test_of_the_annotation_are_not_looked_for_before_the_first_call(self) -> None:
        llmcache.cached(unresolved.__wrapped__)


# With instructor


class TestInstructor:
    @pytest.fixture
    def client(self, model: StandIn) -> Any:
        return instructor.from_openai(make_sdk(model))

    def test_an_answer_is_stored_with_its_completion(self, model: StandIn, client: Any) -> None:
        @llmcache.cached(exclude=("client",))
        def ask(client: Any, text: str) -> Ticket:
            messages = [{"role": "user", "content": text}]
            ticket: Ticket = client.create(**CALL | {"messages": messages}, model="m")
            return ticket

        first, again = ask(client, "fire"), ask(client, "fire")
        assert len(model.calls) == 1
        assert first == again
        assert type(first) is type(again) is Ticket
        assert first._raw_response == again._raw_response  # type: ignore[attr-defined]
        assert durable.entries().get().input_tokens

    def test_around_a_client_that_remembers(self, model: StandIn) -> None:
        @llmcache.cached(exclude=("client",))
        def ask(client: Any, text: str) -> Ticket:
            ticket: Ticket = client.create(**CALL)
            return ticket

        client = make_client(model)
        with llmcache.capture() as calls:
            assert ask(client, "a") == ask(client, "b") == ask(client, "b")
        assert outcomes(calls) == ["miss", "miss", "hit", "miss", "hit"]
        assert [call.stored for call in calls] == [True, True, False, True, False]
        assert len(model.calls) == 1


def test_nothing_is_looked_at_when_a_function_is_decorated(tmp_path: Path) -> None:
    program = """
import llmcache

@llmcache.cached(ttl=60, tags=["a"], exclude=["client"])
async def ask(client, text: str) -> "Undefined": ...
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
