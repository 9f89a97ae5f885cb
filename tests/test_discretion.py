"""Prompts and answers stay out of logs, and out of the rows that people read, whatever fails."""

from __future__ import annotations

import ast
import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, OperationalError
from django.utils import timezone
from pydantic import BaseModel, field_validator, model_serializer

import llmcache
from llmcache import signals
from llmcache.aside import Aside
from llmcache.breakers import Use
from llmcache.conf import settings as llmcache_settings
from llmcache.discretion import without_content
from llmcache.doors.replay import refresh_entry
from llmcache.exceptions import CorruptEntry
from llmcache.models import CacheEntry, TaskRun
from llmcache.outcomes import Tier
from llmcache.resilience import outages
from llmcache.store.rows import tier as durable
from llmcache.usage import ledger, task_runs
from project.standin.server import StandIn
from tests.support.clients import make_client
from tests.support.entries import expire
from tests.support.waiting import await_lease

PACKAGE = Path(llmcache.__file__).parent
CANARY = "Canary7391"

database = pytest.mark.django_db(transaction=True)


class Note(BaseModel):
    """What a patient has."""

    title: str


def asking(more: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{CANARY} has a cold. {more}"}]
    return {"messages": messages, "response_model": Note}


@pytest.fixture
def client(model: StandIn) -> Any:
    model.behaviour.answer_with = {"title": f"{CANARY} has a cold"}
    return make_client(model, max_retries=0)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What was logged by llmcache and by Django, tracebacks included: something, and no canary."""
    caplog.set_level(logging.DEBUG, "llmcache")
    yield lambda: caplog.text
    # (Django's logger of SQL statements shows their parameters where DEBUG is on, as it must.)
    ours = [each for each in caplog.get_records("call") if each.name == "llmcache"]
    told = caplog.handler.formatter or logging.Formatter()
    assert ours
    for record in ours:
        assert CANARY not in told.format(record)
        assert not record.exc_info


class TestALogHoldsNoContent:
    """Each test makes one kind of trouble; the fixture `said` looks at all that was logged."""

    pytestmark = database

    def test_of_a_stored_answer_that_does_not_validate_any_more(
        self, client: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuse = {"on": False}

        class Checked(Note):
            @field_validator("title")
            @classmethod
            def known(cls, title: str) -> str:
                if refuse["on"]:
                    raise ValueError(f"no such title: {title}")
                return title

        call = asking() | {"response_model": Checked}
        client.create(**call)
        refuse["on"] = True
        with pytest.raises(Exception, match=CANARY):
            client.create(**call)
        assert "holds a bad entry under" in said()
        assert "ValidationError" in said()

    def test_of_an_answer_that_cannot_be_encoded(
        self, client: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Odd(Note):
            @model_serializer(mode="wrap")
            def dump(self, handler: Any) -> Any:
                raise RuntimeError(f"cannot dump {self.title}")

        def fail(answer: Any, *_: Any, **__: Any) -> Any:
            raise RuntimeError(f"cannot encode {answer!r}")

        with llmcache.capture() as calls:
            client.create(**asking() | {"response_model": Odd})
            monkeypatch.setattr("llmcache.client.shapes.Shape.encode", fail)
            monkeypatch.setattr("llmcache.codec.answers.encode", fail)
            client.create(**asking("Again."))
        assert all(CANARY not in call.reason for call in calls)
        assert f"not stored under {calls[1].key}: RuntimeError in" in said()
        assert "(test_discretion.py:" in said()  # where it was raised

    @pytest.mark.parametrize("kind", [RuntimeError, ImproperlyConfigured, CorruptEntry])
    def test_of_a_redactor_that_fails(
        self,
        client: Any,
        settings: Any,
        said: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
        kind: Any,
    ) -> None:
        def redact(request: Any) -> Any:
            raise kind(f"cannot redact {request}") if kind is not CorruptEntry else KeyError(CANARY)

        monkeypatch.setitem(globals(), "redact", redact)
        settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": f"{__name__}.redact"}
        client.create(**asking())
        assert "will be stored without its request" in said()

    def test_of_a_rule_of_admission_that_fails(
        self, client: Any, settings: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def admit(answer: Any, completion: Any) -> bool:
            raise RuntimeError(f"cannot judge {answer!r}")

        monkeypatch.setitem(globals(), "admit", admit)
        settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.admit"}
        client.create(**asking())
        assert "an answer was not stored under" in said()

    @pytest.mark.parametrize("kind", [DataError, OperationalError, ValueError])
    def test_of_a_database_that_repeats_what_it_was_given(
        self, client: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch, kind: Any
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise kind(f"DETAIL: Failing row contains ({CANARY})")

        monkeypatch.setattr(durable, "write", fail)
        with llmcache.capture() as calls:
            client.create(**asking())
        assert not calls[0].stored
        assert CANARY not in calls[0].reason
        assert "failed to write" in said()

    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_of_a_function_whose_tags_cannot_be_told(
        self, said: Callable[[], str], is_async: bool
    ) -> None:
        def tags(text: str) -> list[str]:
            raise KeyError(text)

        def read(text: str) -> str:
            return text

        async def aread(text: str) -> str:
            return text

        with llmcache.capture() as calls:
            if is_async:
                asyncio.run(llmcache.cached(tags=tags)(aread)(CANARY))
            else:
                llmcache.cached(tags=tags)(read)(CANARY)
        assert calls[0].reason == "its tags could not be told (KeyError)"
        assert "the tags of" in said()

    def test_of_arguments_without_a_key(self, client: Any, said: Callable[[], str]) -> None:
        def read(of: dict[str, object]) -> str:
            return "x"

        llmcache.cached()(read)({CANARY: object()})
        client.create(**asking(), context={CANARY: object()})
        assert said().count("not cached") == 2

    def test_of_a_refresh_behind_the_caller(self, client: Any, said: Callable[[], str]) -> None:
        stale = asking() | {"cache_ttl": 0.3, "cache_stale_while_revalidate": 60}

        class Fickle(Note):
            @field_validator("title")
            @classmethod
            def known(cls, title: str) -> str:
                if threading.current_thread().name == "llmcache refresh":
                    raise ValueError(f"no such title: {title}")
                return title

        client.create(**stale | {"response_model": Fickle})
        await_lease()
        time.sleep(0.4)
        client.create(**stale | {"response_model": Fickle})
        for thread in threading.enumerate():
            if thread.name == "llmcache refresh":
                thread.join()
        assert "was not refreshed" in said()

    def test_of_a_refresh_by_a_queue(
        self, model: StandIn, client: Any, said: Callable[[], str]
    ) -> None:
        client.create(**asking())
        key = CacheEntry.objects.get().key
        expire()
        await_lease()
        model.behaviour.answer_with = {"titel": CANARY}
        with pytest.raises(llmcache.LLMCacheError) as caught:
            refresh_entry(key)
        # A queue writes down the error and, where it is not suppressed, what it was raised from.
        assert CANARY not in str(caught.value)
        assert caught.value.__suppress_context__
        model.fail_with = 503
        await_lease()
        assert refresh_entry(key) == "the provider failed"
        assert "was not refreshed" in said()

    def test_of_what_instructor_hands_to_its_cache(
        self, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise ValueError(CANARY)

        monkeypatch.setattr(Aside, "_key", fail)
        cache = llmcache.DjangoCache()
        assert cache.get("k") is None
        cache.set("k", CANARY)
        assert said().count("DjangoCache could not") == 2

    def test_of_a_call_that_cannot_be_counted(
        self, client: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any) -> Any:
            raise ValueError(CANARY)

        monkeypatch.setattr(ledger, "_group", fail)
        client.create(**asking())
        ledger.flush()
        assert "could not be counted" in said()

    def test_of_receivers_that_cannot_be_called(
        self, client: Any, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(CANARY)

        with monkeypatch.context() as patch:
            patch.setattr(signals.call_answered, "receivers", [object()])
            patch.setattr(signals.call_answered, "send_robust", fail)
            client.create(**asking())
        assert "a signal did not reach" in said()


@database
class TestRowsForPeople:
    def test_a_run_of_a_task(self) -> None:
        with pytest.raises(ValueError, match=CANARY), task_runs.recorded("reading"):
            raise ValueError(CANARY)
        assert CANARY not in TaskRun.objects.get().error

    def test_an_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outages, "is_up", lambda tier: False)
        error = OperationalError(f"({CANARY})")
        outages.record(Tier.HOT, Use.WRITE, timezone.now(), error)
        assert [row.error for row in outages.current()] == ["(write) OperationalError"]


class TestAnErrorInWords:
    def test_tells_its_type_and_the_innermost_place_that_is_no_librarys(self) -> None:
        with pytest.raises(ValueError, match=CANARY) as caught:
            Note.model_validate({"titel": CANARY})
        line = caught.traceback[0].lineno + 1
        here = f"{type(self).__qualname__}.{caught.traceback[0].name} (test_discretion.py:{line})"
        assert without_content(caught.value) == f"ValidationError in {here}"

    def test_tells_the_code_of_a_database_or_the_system(self) -> None:
        error = OperationalError(CANARY)
        error.__cause__ = sqlite3.OperationalError()
        error.__cause__.sqlite_errorname = "SQLITE_BUSY"
        assert without_content(error) == "OperationalError SQLITE_BUSY"
        assert without_content(ConnectionRefusedError(111, CANARY)) == "ConnectionRefusedError 111"

    def test_takes_no_content_for_a_code(self) -> None:
        class Loud(Exception):
            sqlstate = CANARY

            @property
            def errno(self) -> int:
                raise RuntimeError(CANARY)

        assert without_content(Loud(CANARY)) == "Loud"

    def test_keeps_the_words_of_llmcache_itself(self, settings: Any) -> None:
        assert without_content(CorruptEntry("cut short")) == "cut short"
        settings.LLMCACHE = {"TTL": "soon"}
        with pytest.raises(ImproperlyConfigured) as caught:
            _ = llmcache_settings.ttl
        assert without_content(caught.value).startswith("LLMCACHE['TTL'] must be")
        assert without_content(llmcache.InvalidArgument(CANARY)) == "InvalidArgument"

    def test_of_anybody_who_raises_what_llmcache_raises(self) -> None:
        with pytest.raises(ImproperlyConfigured) as caught:
            raise ImproperlyConfigured(CANARY)
        assert CANARY not in without_content(caught.value)


LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "log"}
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_logger_is_given_an_error(path: Path) -> None:
    tree = ast.parse(path.read_text())
    errors = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)}
    errors |= {"error", "exception"}
    for call in ast.walk(tree):
        if not _logs(call):
            continue
        assert isinstance(call, ast.Call)
        assert call.func.attr != "exception"  # type: ignore[attr-defined]
        assert not {"exc_info", "stack_info"} & {each.arg for each in call.keywords}
        bare = {name for argument in call.args for name in _names(argument)}
        assert not bare & errors, f"{path}:{call.lineno}: say it by without_content"


def test_every_way_to_log_is_looked_at() -> None:
    calls = [node for path in MODULES for node in ast.walk(ast.parse(path.read_text()))]
    assert len([call for call in calls if _logs(call)]) > 20
    for path in MODULES:
        source = path.read_text()
        assert "traceback.format" not in source
        assert "traceback.print" not in source
        assert "print_exc" not in source


def _logs(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOGGING
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"logger", "logging", "log"}
    )


def _names(node: ast.AST) -> Iterator[str]:
    """The names in an argument, but for those that `without_content` or `type` is given."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"without_content", "type"}:
        return
    if isinstance(node, ast.Name):
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
