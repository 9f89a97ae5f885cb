"""The examples of README.md and of the pages of docs/ are run, and do what the pages say."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.management import call_command
from django.dispatch import Signal
from django.test import SimpleTestCase

import llmcache
from llmcache import signals
from llmcache.client.call.arguments import CACHE_ARGUMENTS
from llmcache.codec.envelope import ANSWER, REQUEST, unseal
from llmcache.middleware import NamespaceMiddleware
from llmcache.outcomes import Call
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support import servers
from tests.support.pages import (
    FIRST_CALL,
    MANUAL,
    PYTHON,
    SHELL,
    Block,
    Namespace,
    commands,
    execute,
)
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _provider(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has in the environment, and that the SDK is to leave no connection open."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")
    monkeypatch.setenv("LLMCACHE_ENCRYPTION_KEYS", "c2VjcmV0IHNlY3JldCBzZQ==")


@pytest.fixture
def _receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers that an example connects are gone after the test."""
    for signal in vars(signals).values():
        if isinstance(signal, Signal):
            monkeypatch.setattr(signal, "receivers", list(signal.receivers))


@pytest.fixture
def run(
    _provider: None,
    _receivers: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Namespace]:
    """Run the blocks under a heading, after the first call; what they have defined."""

    def run_blocks(heading: str) -> Namespace:
        blocks = [block for block in PYTHON if block.heading == heading]
        namespace: Namespace = {"__name__": "readme"}
        project: Namespace = {
            "INSTALLED_APPS": [],
            "MIDDLEWARE": [],
            "CACHES": {"default": settings.CACHES["default"]},
            "DATABASES": dict(settings.DATABASES),
            "BASE_DIR": tmp_path,
        }
        if heading != FIRST_CALL and any(block.file is None for block in blocks):
            [first_call] = (block for block in PYTHON if block.heading == FIRST_CALL)
            execute(first_call, namespace)
        for block in blocks:
            if block.file is None:
                execute(block, namespace)
            elif block.file == "settings.py":
                execute(block, project)
                apply(project, settings, monkeypatch)
            else:
                install(block, monkeypatch)
        for case in namespace.values():
            if isinstance(case, type) and case.__module__ == namespace["__name__"]:
                run_tests(case, tmp_path, settings)
        return namespace | project

    return run_blocks


def apply(project: Namespace, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the settings of an example, and check them as `manage.py check` does."""
    for alias in project["DATABASES"].keys() - settings.DATABASES.keys():
        # Past `override_settings`, which warns: connections are open.
        monkeypatch.setitem(django_settings.DATABASES, alias, project["DATABASES"][alias])
    for name in ("LLMCACHE", "CACHES", "DATABASE_ROUTERS", "MIDDLEWARE"):
        if name in project:
            setattr(settings, name, project[name])
    assert run_checks(tags=["llmcache"]) == []


def install(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module of an example be imported by its dotted path."""
    assert block.file is not None
    name = block.file.removesuffix(".py").replace("/", ".")
    module = ModuleType(name)
    execute(block, vars(module))
    for package in (name.rpartition(".")[0], name):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)


def run_tests(case: type, fixtures: Path, settings: Any) -> None:
    """Run a test case as Django's runner does, with a fixture of what is stored."""
    if issubclass(case, SimpleTestCase):
        settings.FIXTURE_DIRS = [fixtures]
        [line] = (line for line in commands() if "dumpdata" in line)
        _, _, name, model, _, output = shlex.split(line)
        call_command(name, model, output=fixtures / Path(output).name, verbosity=0)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        assert result.testsRun
        assert not [trace for _, trace in (*result.failures, *result.errors)]


HEADINGS = list(dict.fromkeys(block.heading for block in PYTHON))


@pytest.mark.parametrize("heading", HEADINGS)
def test_example(run: Callable[..., Namespace], heading: str) -> None:
    run(heading)


def test_the_model_is_asked_once_in_the_first_call(
    run: Callable[..., Namespace], model: StandIn
) -> None:
    run(FIRST_CALL)
    assert len(model.calls) == 1


def test_each_public_name_is_in_an_example() -> None:
    code = "\n".join(block.code for block in PYTHON)
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "llmcache"
    }
    assert used >= set(llmcache.__all__)


def test_each_argument_of_a_call_is_in_an_example_and_has_a_heading() -> None:
    code = "\n".join(block.code for block in PYTHON)
    for argument in CACHE_ARGUMENTS:
        assert f"{argument}=" in code
        assert f"\n## `{argument}`\n" in MANUAL


@pytest.mark.redis
def test_the_hot_tier_of_the_settings(run: Callable[..., Namespace], settings: Any) -> None:
    servers.require(servers.RedisServer)
    block = next(block for block in PYTHON if "CACHES" in block.code and block.file)
    project: Namespace = {"CACHES": {"default": settings.CACHES["default"]}}
    with servers.RedisServer() as redis:
        execute(block, project)
        project["CACHES"]["llmcache"]["LOCATION"] = redis.url
        settings.CACHES = project["CACHES"]
        settings.LLMCACHE = {"CACHE": "llmcache"}
        with llmcache.capture() as calls:
            run(FIRST_CALL)
        caches["llmcache"].close()
    assert [call.tier for call in calls] == [None, "hot"]


def test_nothing_is_legible_with_the_keys_of_the_example(run: Callable[..., Namespace]) -> None:
    run("Encryption")
    with llmcache.capture() as calls:
        run(FIRST_CALL)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    row = durable.entries().get()
    assert b"printer" not in bytes(row.payload) + bytes(row.request or b"")


def test_the_command_that_makes_an_encryption_key(settings: Any) -> None:
    [line] = (line for line in commands() if "b64encode" in line)
    key = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": [key]}
    assert run_checks(tags=["llmcache"]) == []


def test_the_redactor_of_the_example(run: Callable[..., Namespace]) -> None:
    run("Prompts at rest")
    client, ticket = (run(FIRST_CALL)[name] for name in ("client", "Ticket"))
    durable.entries().delete()
    messages = [{"role": "user", "content": "Write to jo@example.org, it burns."}]
    client.create(response_model=ticket, messages=messages)
    row = durable.entries().get()
    request = unseal(REQUEST, row.key, bytes(row.request or b"")).body
    assert b"Write to [address] it burns." in request
    assert unseal(ANSWER, row.key, bytes(row.payload)).body
    assert messages[0]["content"] == "Write to jo@example.org, it burns."


def test_the_tenants_of_the_example(run: Callable[..., Namespace]) -> None:
    namespace = run("Tenants")
    arguments = {"response_model": namespace["Ticket"], "messages": namespace["messages"]}

    def call_of(user: Any) -> Call:
        middleware: Any = NamespaceMiddleware(lambda _: namespace["client"].create(**arguments))
        with llmcache.capture() as calls:
            middleware(SimpleNamespace(user=user))
        return calls[0]

    users = [SimpleNamespace(pk=pk, is_authenticated=True) for pk in (7, 8)]
    assert [call_of(user).namespace for user in users] == ["tenant:7", "tenant:8"]
    assert call_of(SimpleNamespace(pk=None, is_authenticated=False)).outcome == "bypass"


@pytest.mark.slow
def test_the_five_steps_in_a_new_project(model: StandIn, tmp_path: Path) -> None:
    environment = {
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "k",
        "PYTHONPATH": str(ROOT),
        "PATH": "",
    }

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "django", "startproject", "site1", ".")
    rows_only, _, own_database = (b for b in PYTHON if b.heading == "2. Add it to the settings")
    with (tmp_path / "site1" / "settings.py").open("a") as file:
        file.write(rows_only.code + own_database.code)
    for block in SHELL:
        if block.heading in {"3. Make the tables, and check", "5. Schedule the expiry"}:
            lines = block.code.splitlines()
            printed = [python(*shlex.split(line, comments=True)[1:]) for line in lines]
    assert printed == ["0 expired entries removed.\n", "0 rows of hours became part of a day.\n"]
    [first_call] = (block for block in PYTHON if block.heading == FIRST_CALL)
    for _ in range(2):
        python("manage.py", "shell", "--command", first_call.code)
    assert len(model.calls) == 1
    assert python("manage.py", "check") == "System check identified no issues (0 silenced).\n"
