"""Arguments and names of decorated functions in the key."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcache
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.decorators.decorator import CachedFunction
from llmcache.store.rows import tier as durable
from tests.support.decorated import anything, asked, note, outcomes
from tests.support.paths import ROOT
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_no_credential_among_the_arguments_is_kept_in_clear() -> None:
    secret = "s3cr3t-of-alice"

    def made(api_key: str) -> Any:
        @llmcache.cached
        def summary(text: str, access_token: str, options: dict[str, Any]) -> str:
            return text + api_key[:0]

        return summary

    summary = made(secret)
    options = {"headers": {"Authorization": f"Bearer {secret}"}, "url": f"https://x:{secret}@host/"}
    summary("Hello.", secret, options)
    row = durable.entries().get()
    request = unseal(REQUEST, row.key, bytes(row.request or b"")).body
    assert b"Hello." in request
    assert secret.encode() not in request
    assert summary.key("Hello.", secret, options) != summary.key("Hello.", "other", options)
