"""Answers that are broken: nothing unfinished is kept, and nothing else is raised than without."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from llmcache.http.graft import grafted
from tests.support.broken import CASES, ENDINGS, Case, broken
from tests.support.http import plain
from tests.support.provider import Provider, Said

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore")]

EACH = 300
# What a transport adds to the headers, which some SDKs show in their errors.
OURS = re.compile(r", 'cache-status': '[^']*'")
# What tells the answer in the objects of an SDK, and in what way.
TOLD = ("text", "content", "arguments", "args", "input", "partial_json", "name")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs wait between two attempts: not here."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


def client_of(case: Case, provider: Provider) -> Any:
    def over(inner: Any) -> Any:
        return provider.transport(sys.modules[type(inner).__module__.partition(".")[0]])

    client = grafted(case.sdk.make("http://127.0.0.1:9", False), over)
    assert client is not None
    return client


def asked(case: Case, client: Any, number: int, is_stream: bool) -> list[Any]:
    """What the SDK hands on, and what it raises at last."""
    told: list[Any] = []
    question = f"Which city is number {number}?"
    try:
        if not is_stream:
            return [plain(case.sdk.ask(client, question))]
        assert case.sdk.stream is not None
        told.extend(map(plain, opened(case.sdk.stream(client, question))))
    except Exception as error:  # noqa: BLE001 - compared with what comes of the plain SDK
        told.append((type(error), OURS.sub("", str(error))))
    return told


def opened(stream: Any) -> Iterator[Any]:
    if hasattr(stream, "__enter__") and not hasattr(stream, "__iter__"):
        with stream as items:
            yield from items
    else:
        yield from stream


def said(value: Any) -> list[tuple[str, str]]:
    """All that tells the answer, in its order; a text that came in pieces as one."""
    found: list[tuple[str, str]] = []
    for name, text in _texts(value):
        if found and found[-1][0] == name:
            before = found.pop()[1]
            text = text if name in ENDINGS and text == before else before + text
        found.append((name, text))
    return found


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    for name, inner in _items(value):
        if isinstance(inner, str) and inner and name in (*TOLD, *ENDINGS):
            yield name, str(inner)
        else:
            yield from _texts(inner)


def _items(value: Any) -> Any:
    if isinstance(value, dict):
        return value.items()
    return [("", each) for each in value] if isinstance(value, list | tuple) else ()


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_broken_is_not_kept(name: str, is_stream: bool) -> None:
    case = CASES[name]
    good = [case.good(is_stream, has_tools=has_tools) for has_tools in (False, True)]
    kept, wrong = 0, list[tuple[Any, ...]]()
    plainly, ours = Provider(Exception()), Provider(Exception())
    one = client_of(case, plainly)
    two = llmcache.wrap(client_of(case, ours))
    whole = [said(answer_of(case, one, plainly, each, number=-1)) for each in good]
    whole += map(said, good)
    for number, each in enumerate(good, start=EACH):
        with llmcache.capture() as calls:
            answer_of(case, two, ours, each, number)
        assert [call.stored for call in calls] == [True], calls
    for number in range(EACH):
        plainly.said = ours.said = answer = broken(case, number, is_stream)
        expected = asked(case, one, number, is_stream)
        with llmcache.capture() as calls:
            first = asked(case, two, number, is_stream)
            second = asked(case, two, number, is_stream)
        if first != expected:
            wrong.append((number, "differs", first[-1:], expected[-1:]))
        if any(call.stored for call in calls):
            kept += 1
            if second != first:
                wrong.append((number, "another", first, second))
            if case.is_strict and not is_stream:
                expected = [json.loads(answer.body)]  # type: ignore[arg-type]
            if said(expected) not in whole:
                wrong.append((number, "kept", answer.body, said(expected)))
    assert not wrong, "\n\n".join(
        f"{each[:2]} {str(each[-1])[:200]} {str(each[2])[-400:]}" for each in wrong
    )
    assert kept < EACH / 3


def answer_of(case: Case, client: Any, provider: Provider, good: Any, number: int) -> list[Any]:
    is_stream = isinstance(good, list)
    provider.said = Said(good if is_stream else json.dumps(good).encode())
    told = asked(case, client, number, is_stream)
    assert told
    assert not isinstance(told[-1], tuple), told
    return told
