"""``manage.py llmcache_warm``: a file of requests, answered at once."""

from __future__ import annotations

import builtins
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.paths import ROOT
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

OPTIONS = ["--model", "openai/gpt-4.1-mini", "--response-model", "tests.support.ticket.Ticket"]


def asking(text: str, **arguments: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **arguments}


def lines(*requests: Any) -> str:
    return "".join(f"{json.dumps(request)}\n" for request in requests)


@pytest.fixture(autouse=True)
def _provider(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")


@pytest.fixture
def warm(tmp_path: Path) -> Callable[..., str]:
    """Warm with a file that holds this text; what is printed."""

    def run(text: str, *options: str) -> str:
        path, printed = tmp_path / "requests.jsonl", io.StringIO()
        path.write_text(text)
        call_command("llmcache_warm", str(path), *OPTIONS, *options, stdout=printed)
        return printed.getvalue()

    return run


def test_who_asks_next_finds_the_answers(warm: Callable[..., str], model: StandIn) -> None:
    text = lines(asking("Fire"), asking("Water", temperature=0), asking("Fire"))
    assert warm(text) == "3 requests: 1 hit, 2 miss; 2 stored\n"
    assert warm(text) == "3 requests: 3 hit; 0 stored\n"
    client: Any = llmcache.from_provider("openai/gpt-4.1-mini")
    with llmcache.capture() as calls:
        client.create(response_model=Ticket, **asking("Water", temperature=0))
    assert calls[0].outcome == "hit"
    assert len(model.calls) == 2


def test_a_line_may_name_a_sample(warm: Callable[..., str], model: StandIn) -> None:
    assert warm(lines(asking("Fire"), asking("Fire", cache_sample=1))).endswith("2 stored\n")
    assert len(model.calls) == 2


def test_options_and_arguments_of_a_line_count(warm: Callable[..., str]) -> None:
    options = "--namespace support --ttl 60 --tag import --tag monday --mode json --concurrency 2"
    warm(
        lines(asking("Fire", cache_tags=["fire"]), asking("Water", cache_ttl=None)),
        *options.split(),
    )
    fire, water = durable.entries().in_namespace("support").order_by("created_at", "expires_at")
    if fire.expires_at is None:
        fire, water = water, fire
    assert fire.expires_at is not None
    assert (fire.expires_at - fire.created_at).total_seconds() <= 61
    assert water.expires_at is None
    assert {fire.mode, water.mode} == {"json_mode"}
    assert durable.entries().tagged(["import"]).tagged(["monday"]).count() == 2
    assert durable.entries().tagged(["fire"]).count() == 1


def test_a_line_that_fails_is_named_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = asking("", messages=[{"role": "user", "content": [{"type": "smell"}]}])
    (tmp_path / "requests.jsonl").write_text(lines(asking("Fire")) + "\n" + lines(unknown))
    with pytest.raises(CommandError, match="1 of 2 requests failed") as caught:
        call_command("llmcache_warm", str(tmp_path / "requests.jsonl"), *OPTIONS)
    assert caught.value.returncode == 1
    summary, failure = capsys.readouterr().out.splitlines()
    assert summary == "2 requests: 1 miss, 1 failed; 1 stored"
    assert failure.startswith("line 3: ")
    # (The provider's text stays out of what cron writes into a log: it may quote the prompt.)
    assert "InstructorRetryException 400" in failure
    assert "smell" not in failure
    assert durable.entries().count() == 1


def test_as_json(warm: Callable[..., str], model: StandIn) -> None:
    model.behaviour.truncate = True
    with pytest.raises(CommandError):
        warm(lines(asking("Fire")), "--format", "json")
    model.behaviour.truncate = False
    report = json.loads(
        warm(lines(asking("Fire"), asking("Water", cache_ttl=0)), "--format", "json")
    )
    assert report == {
        "requests": 2,
        "outcomes": {"miss": 2},
        "stored": 1,
        "not_stored": [{"line": 2, "reason_code": "no-ttl", "reason": "cache_ttl is 0"}],
        "failed": [],
    }


def test_standard_input(monkeypatch: pytest.MonkeyPatch, model: StandIn) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines(asking("Fire"))))
    call_command("llmcache_warm", "-", *OPTIONS, stdout=io.StringIO())
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"messages": []}\n{"messages": [}\n', "Line 2, column 15: Expecting value"),
        ("[" * 100_000, "Line 1: it is nested too deeply"),
        ("\n[1]\n", r"Line 2: a request is an object, .* not a list"),
        (lines({"response_model": "x"}), "give it by --response-model"),
        (lines(asking("x", model="m")), "give it by --model"),
        (lines(asking("x"), asking("y", cache_ttl=-1)), "Line 2: .*cache_ttl takes seconds"),
        ("\n" + lines({"temperature": 0}), "Line 2: It is no call of a client"),
        ("\n\n", "holds no request"),
    ],
)
def test_nothing_is_asked_before_all_is_read(
    warm: Callable[..., str], model: StandIn, text: str, message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        warm(text)
    assert not model.calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--response-model", "tests.support.ticket.Nothing"],
            "--response-model is the dotted path",
        ),
        (["--mode", "nonsense"], "'nonsense' is no mode of instructor. There are: .*TOOLS"),
        (["--model", "nobody/nothing"], "There is no client for nobody/nothing"),
        (["--namespace", ""], "namespace has 1 to 255"),
        (["--ttl", "-1"], "ttl takes seconds"),
        (["--concurrency", "0"], "concurrency is 1 or more"),
    ],
)
def test_options_that_cannot_be_meant(
    warm: Callable[..., str], model: StandIn, options: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        warm(lines(asking("x")), *options)
    assert not model.calls


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("llmcache_warm", str(tmp_path / "no.jsonl"), *OPTIONS)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_rich_there_is_no_bar(
    tmp_path: Path, model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_rich(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    (tmp_path / "requests.jsonl").write_text(lines(asking("Fire")))
    terminal = Terminal()
    call_command(
        "llmcache_warm",
        str(tmp_path / "requests.jsonl"),
        *OPTIONS,
        stdout=io.StringIO(),
        stderr=terminal,
    )
    assert terminal.getvalue() == ""
    assert len(model.calls) == 1


@pytest.mark.parametrize("options", [[], ["--no-progress"]], ids=str)
def test_the_bar_is_on_a_terminal_only(tmp_path: Path, options: list[str]) -> None:
    """As a user runs it: standard error is a terminal, standard output a pipe."""
    (tmp_path / "requests.jsonl").write_text(lines(asking("Fire"), asking("Water")))
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "django", "llmcache_warm", str(tmp_path / "requests.jsonl")]
    done = subprocess.run(
        [*program, *OPTIONS, *options],
        cwd=ROOT,
        env=os.environ
        | {"DJANGO_SETTINGS_MODULE": "tests.settings", "LLMCACHE_TEST_CHILD": "1", "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = read(ours)
    assert done.returncode == 0, shown
    assert done.stdout == "2 requests: 2 miss; 2 stored\n"
    assert ("2/2" in shown) is not bool(options)


def read(terminal: int) -> str:
    pieces = []
    try:
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    except OSError:  # nobody has the other end any more
        pass
    finally:
        os.close(terminal)
    return b"".join(pieces).decode()


def test_a_namespace_has_to_be_named_where_there_is_none(
    warm: Callable[..., str], model: StandIn, settings: Any
) -> None:
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None}
    with pytest.raises(CommandError, match="give --namespace"):
        warm(lines(asking("x"), asking("y", cache_namespace="A")))
    assert model.calls == []
    warm(lines(asking("y", cache_namespace="A")))
    settings.LLMCACHE |= {"REQUIRE_NAMESPACE": True}
    with pytest.raises(CommandError, match="REQUIRE_NAMESPACE"):
        warm(lines(asking("x")))
    warm(lines(asking("x"), asking("y", cache_namespace="A")), "--namespace", "B")
    assert sorted(row.namespace for row in durable.entries()) == ["A", "B"]
