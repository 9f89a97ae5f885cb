"""What a decorated function looks like, what is refused, and instructor inside of it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, assert_type

import instructor
import pytest
from celery import shared_task

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client, make_sdk
from tests.support.decorated import (
    Extractor,
    aextract,
    asked,
    aspell,
    extract,
    one,
    outcomes,
    spell,
    unresolved,
)
from tests.support.paths import ROOT
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

# What it looks like


class TestLooks:
    def test_like_the_function(self) -> None:
        assert extract.__name__ == "extract"  # type: ignore[attr-defined]
        assert extract.__doc__ == "Extract a ticket."
        assert extract.__module__ == "tests.support.decorated"
        assert extract.__wrapped__(7).title.startswith("7 ")
        assert list(inspect.signature(extract).parameters) == ["number", "text", "urgent"]
        assert repr(extract) == "<llmcache.cached tests.support.decorated.extract>"

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
