"""Clients that are made at their first use, and what is not imported before."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from typing import Any

import instructor
import openai
import pytest
from asgiref.sync import async_to_sync
from instructor.core.hooks import Hooks

import llmcache
from llmcache.client import registry
from llmcache.doors import replay
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client
from tests.support.paths import ROOT
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


def make_lazy(model: StandIn, **kwargs: Any) -> Any:
    return make_client(model, lazy=True, **kwargs)


@pytest.fixture
def _without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_without_credentials")
def test_is_made_without_credentials_and_asks_for_them_at_each_use() -> None:
    client = llmcache.from_provider("openai/gpt-4.1-mini", lazy=True)
    assert isinstance(client, instructor.Instructor)
    assert not isinstance(client, instructor.AsyncInstructor)
    uses = [
        lambda: client.create(**CALL),
        lambda: client.chat.completions.create(**CALL),
        lambda: client.create_with_completion(**CALL),
        lambda: list(client.create_iterable(**CALL)),
        lambda: client.create_partial(**CALL),
        lambda: llmcache.key_for(client, **CALL),
        lambda: llmcache.explain(client, **CALL),
        lambda: llmcache.create_many(client, [CALL]),
    ]
    for use in uses:
        with pytest.raises(openai.OpenAIError, match="api_key"):
            use()


@pytest.mark.usefixtures("_without_credentials")
def test_works_from_the_moment_at_which_there_are_credentials(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = llmcache.from_provider(
        "openai/gpt-4.1-mini",
        lazy=True,
        base_url=model.url,
        default_headers={"Connection": "close"},
    )
    with pytest.raises(openai.OpenAIError):
        client.create(**CALL)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with llmcache.capture() as calls:
        assert client.create(**CALL) == client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    assert type(client) is instructor.Instructor


@pytest.mark.parametrize("method", ["create_iterable", "create_partial", "create"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_each_way_to_ask_may_be_the_first(model: StandIn, is_async: bool, method: str) -> None:
    client = make_lazy(model, async_client=is_async)
    ordinary = make_client(model, async_client=is_async)

    async def ask(each: Any) -> Any:
        answer = getattr(each, method)(**CALL)
        return await answer if method == "create" else [item async for item in answer]

    with llmcache.capture() as calls:
        for each in (client, ordinary):
            if is_async:
                async_to_sync(ask)(each)
            elif method == "create":
                each.create(**CALL)
            else:
                list(getattr(each, method)(**CALL))
    assert [call.outcome for call in calls] == ["miss", "hit"]
    assert len(model.calls) == 1


def test_an_asynchronous_one_is_of_the_asynchronous_class(model: StandIn) -> None:
    client = make_lazy(model, async_client=True)
    assert isinstance(client, instructor.AsyncInstructor)
    results = async_to_sync(llmcache.acreate_many)(client, [CALL, CALL])
    assert results[0].unwrap() == results[1].unwrap()
    assert type(client) is instructor.AsyncInstructor


def test_responses_are_there(model: StandIn) -> None:
    client = make_lazy(model, mode=instructor.Mode.RESPONSES_TOOLS)
    answer = client.responses.create(input="The printer is on fire.", response_model=Ticket)
    assert isinstance(answer, Ticket)
    assert client.responses.client is client


def test_keys_are_those_of_a_client_made_at_once(model: StandIn) -> None:
    lazy = make_lazy(model, namespace="support")
    assert llmcache.key_for(lazy, **CALL) == llmcache.key_for(
        make_client(model, namespace="support"), **CALL
    )


def test_hooks_hear_from_the_beginning(model: StandIn) -> None:
    heard: list[str] = []
    given = Hooks()
    given.on("completion:kwargs", lambda *args, **kwargs: heard.append("given"))
    client = make_lazy(model, hooks=given)
    client.on("completion:kwargs", lambda *args, **kwargs: heard.append("kept"))
    client.on("completion:kwargs", unwanted := lambda *args, **kwargs: heard.append("taken off"))
    client.off("completion:kwargs", unwanted)
    client.create(**CALL)
    client.on("completion:kwargs", lambda *args, **kwargs: heard.append("later"))
    client.create(**CALL, cache_mode="reload")
    assert heard == ["given", "kept", "given", "kept", "later"]


def test_threads_make_one_client(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = instructor.from_provider
    together = threading.Barrier(8)

    def make_and_note(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return make(*args, **kwargs)

    monkeypatch.setattr(instructor, "from_provider", make_and_note)
    client = make_lazy(model)
    answers: list[Any] = []

    def work() -> None:
        together.wait()
        answers.append(client.create(**CALL))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert answers == answers[:1] * 8
    assert len(model.calls) == 1


def test_who_only_looks_around_makes_nothing() -> None:
    client: Any = llmcache.from_provider("no such provider/x", lazy=True)
    assert not hasattr(client, "__wrapped__")
    repr(client)
    dir(client)
    copy.copy(client)
    assert type(client) is not instructor.Instructor


def test_arguments_of_llmcache_are_refused_at_once() -> None:
    for wrong in ({"ttl": -1}, {"namespace": ""}, {"cache": object()}):
        with pytest.raises(llmcache.InvalidArgument):
            llmcache.from_provider("openai/gpt-4.1-mini", lazy=True, **wrong)


def test_what_is_asked_again_may_be_the_first_use(model: StandIn) -> None:
    make_client(model, namespace="support").create(**CALL)
    registry._clients.clear()
    registry._made_of_the_environment.cache_clear()
    broken = llmcache.from_provider("no such provider/x", lazy=True)
    client = make_lazy(model, namespace="support")
    assert replay.ask_again(durable.entries().get()).stored
    assert type(client) is instructor.Instructor
    assert type(broken) is not instructor.Instructor
    assert len(model.calls) == 2


@pytest.mark.slow
@pytest.mark.parametrize("refresh", [None, "llmcache.tasks.refresh_later"])
def test_the_admin_imports_neither_instructor_nor_an_sdk_nor_celery(refresh: str | None) -> None:
    """Nor do the checks of a site that hands refreshes over, which names Celery itself."""
    program = """
import json, sys
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="k", ROOT_URLCONF="__main__", STATIC_URL="static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib." + name for name in
                    ("admin", "auth", "contenttypes", "sessions", "messages")] + ["llmcache"],
    MIDDLEWARE=["django.contrib." + name for name in (
        "sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware",
        "messages.middleware.MessageMiddleware")],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                "OPTIONS": {"context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages"]}}],
    LLMCACHE={"CACHE": None, "REFRESH": REFRESH},
)
django.setup()
from django.contrib import admin
from django.core.management import call_command
from django.urls import path, reverse
urlpatterns = [path("admin/", admin.site.urls)]
call_command("migrate", verbosity=0)
call_command("check")
reverse("admin:llmcache_cacheentry_changelist")
unwanted = ("instructor", "openai", "anthropic", *(() if REFRESH else ("celery",)))
print(json.dumps([name for name in unwanted if name in sys.modules]))
"""
    program = f"REFRESH = {refresh!r}{program}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.slow
def test_a_lazy_client_imports_no_sdk_but_that_of_instructor_itself() -> None:
    program = """
import sys
import llmcache
client = llmcache.from_provider("anthropic/claude-sonnet-4-5", lazy=True)
before = "anthropic" in sys.modules
try:
    client.create_fn
except Exception as error:
    assert "API" in str(error).upper(), error
print(before, "anthropic" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
