"""``manage.py llmcache_invalidate``."""

from __future__ import annotations

import builtins
import json
import sys
import time
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

import llmcache
from llmcache.management.commands import llmcache_invalidate
from llmcache.models import Invalidation
from llmcache.outcomes import Tier
from llmcache.removal.invalidate import Invalidated
from llmcache.store.rows import tier as durable
from tests.support.removal import KEYS, fill

pytestmark = pytest.mark.django_db


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str, **options: Any) -> str:
    output = StringIO()
    call_command("llmcache_invalidate", *arguments, stdout=output, **options)
    return output.getvalue().strip()


def left() -> set[int]:
    return {KEYS.index(key) for key in durable.entries().values_list("key", flat=True)}


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """Let the user type `text`; the questions."""
    asked: list[str] = []

    def read(question: str) -> str:
        asked.append(question)
        return text

    monkeypatch.setattr(builtins, "input", read)
    return asked


def test_by_keys() -> None:
    fill()
    assert run("--key", KEYS[0], "--key", KEYS[2], "--yes") == "2 entries removed."
    assert left() == {1, 3, 4, 5, 6, 7}


def test_by_tags() -> None:
    fill(tags={0: frozenset({"a"}), 1: frozenset({"b"}), 2: frozenset({"c"})})
    assert run("--tag", "a", "--tag", "b", "--yes") == "2 entries removed."
    assert left() == {2, 3, 4, 5, 6, 7}


def test_by_what_narrows() -> None:
    path = "tests.support.ticket.Ticket"
    fill(namespace={0: "n", 1: "n"}, model={0: "m"}, response_model={0: path, 2: path})
    arguments = ["--namespace", "n", "--model", "m", "--response-model", path]
    assert run(*arguments, "--yes") == "1 entry removed."
    assert left() == set(range(1, 8))


def test_by_age_and_by_moment() -> None:
    now = time.time()
    fill(created={0: now - 8 * 86_400, 1: now - 7200, 2: now - 60})
    assert run("--before", "7d", "--yes") == "1 entry removed."
    assert run("--before", "1.5h", "--yes") == "1 entry removed."
    moment = datetime.fromtimestamp(now - 30, tz=UTC).isoformat()
    assert run("--before", moment, "--yes") == "1 entry removed."
    assert run("--before", "2020-01-01", "--yes") == "0 entries removed."


@pytest.mark.parametrize("when", ["yesterday", "7", "7y", "", "9" * 30 + "w"])
def test_a_time_that_cannot_be_meant(when: str) -> None:
    with pytest.raises(CommandError, match="--before"):
        run("--before", when, "--yes")


def test_what_cannot_be_meant() -> None:
    fill()
    for arguments in ([], ["--key", "typo"], ["--everything", "--tag", "t"]):
        with pytest.raises(CommandError):
            run(*arguments, "--yes")
    assert len(left()) == 8


def test_it_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(namespace={0: "n", 1: "n"})
    asked = answer(monkeypatch, "")
    with pytest.raises(CommandError, match="Nothing was removed"):
        run("--namespace", "n")
    assert "2 entries" in asked[0]
    assert len(left()) == 8
    assert not Invalidation.objects.exists()
    answer(monkeypatch, "y")
    assert run("--namespace", "n") == "2 entries removed."


def test_it_does_not_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_file(question: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", end_of_file)
    with pytest.raises(CommandError, match="--yes"):
        run("--everything")


def test_who_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jo")
    run("--everything", "--yes")
    run("--everything", "--yes", "--by", "the nightly job")
    assert [row.by for row in Invalidation.objects.order_by("pk")] == ["jo", "the nightly job"]


def test_as_json() -> None:
    fill()
    result = json.loads(run("--everything", "--yes", "--format", "json"))
    row = Invalidation.objects.get()
    assert result == {"entries": 8, "pending": [], "pending_until": None, "id": row.pk}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Invalidated(1, (Tier.HOT,), datetime(2026, 1, 2, tzinfo=UTC)), "2026-01-02 00:00:00 UTC"),
        (Invalidated(1, (Tier.DURABLE, Tier.HOT)), "Run it again"),
    ],
)
def test_what_is_pending_is_an_error(
    monkeypatch: pytest.MonkeyPatch, result: Invalidated, words: str
) -> None:
    monkeypatch.setattr(llmcache_invalidate, "invalidate", lambda **_: result)
    with pytest.raises(CommandError, match=words) as raised:
        run("--everything", "--yes")
    assert raised.value.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "is_shown"), [([], True), (["--no-progress"], False)], ids=str
)
def test_progress(monkeypatch: pytest.MonkeyPatch, arguments: list[str], is_shown: bool) -> None:
    fill()
    given: list[Any] = []

    def note(**options: Any) -> Invalidated:
        given.append(options["progress"])
        return llmcache.invalidate(**options)

    monkeypatch.setattr(llmcache_invalidate, "invalidate", note)
    run("--everything", "--yes", *arguments, stderr=Terminal())
    assert [progress is not None for progress in given] == [is_shown]
    assert left() == set()


def test_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    fill()
    assert run("--everything", "--yes", stderr=Terminal()) == "8 entries removed."
