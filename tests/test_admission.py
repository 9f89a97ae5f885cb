"""What was cut short, refused or filtered is returned, and not stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anthropic
import instructor
import pytest

import llmcache
from llmcache.admission import why_not_admitted
from llmcache.store import durable
from project.standin.server import StandIn
from tests.test_client import CALL, CLOSE, make_client

pytestmark = pytest.mark.django_db(transaction=True)

RAW = CALL | {"response_model": None}


def make_anthropic_client(model: StandIn) -> Any:
    sdk = anthropic.Anthropic(api_key="k", base_url=model.root, default_headers=CLOSE)
    return llmcache.wrap(instructor.from_anthropic(sdk), model="claude")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("truncate", "cut short"), ("refuse", "refused"), ("filter", "filtered")],
)
def test_openai(model: StandIn, behaviour: str, reason: str) -> None:
    client = make_client(model)
    setattr(model.behaviour, behaviour, True)
    with llmcache.capture() as calls:
        assert client.create(**RAW).id
        assert client.create(**RAW).id
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)] * 2
    assert reason in calls[0].reason
    assert not durable.entries().exists()


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("truncate", "cut short"), ("refuse", "refused")]
)
def test_anthropic(model: StandIn, behaviour: str, reason: str) -> None:
    client = make_anthropic_client(model)
    setattr(model.behaviour, behaviour, True)
    with llmcache.capture() as calls:
        assert client.create(**RAW, max_tokens=1000).id
    assert calls[0].stored is False
    assert reason in calls[0].reason


def test_the_answer_in_full_is_stored_afterwards(model: StandIn) -> None:
    client = make_client(model)
    model.behaviour.truncate = True
    client.create(**RAW)
    model.behaviour.truncate = False
    client.create(**RAW)
    with llmcache.capture() as calls:
        client.create(**RAW)
    assert calls[0].outcome == "hit"


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "cut short"),
        ({"incomplete_details": {"reason": "content_filter"}}, "filtered"),
        ({"output": [{"content": [{"type": "refusal", "refusal": "No."}]}]}, "refused"),
        ({"output": [{"content": [{"type": "output_text", "text": "Yes."}]}]}, ""),
        ({"stop_reason": "end_turn", "choices": None}, ""),
        ({"stop_reason": "pause_turn"}, ""),
    ],
    ids=str,
)
def test_the_words_of_other_protocols(completion: dict[str, Any], reason: str) -> None:
    found = why_not_admitted(None, _nested(completion))
    assert (reason in found) if reason else (found == "")


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _nested(item) for name, item in value.items()})
    return [_nested(item) for item in value] if isinstance(value, list) else value


def no_short_titles(answer: Any, completion: Any) -> bool:
    assert completion.model
    return len(answer.title) > 3


def failing_rule(answer: Any, completion: Any) -> bool:
    raise RuntimeError("a rule of the project fails")


@pytest.mark.parametrize(("title", "stored"), [("Fire", True), ("No", False)])
def test_a_rule_of_the_project(model: StandIn, settings: Any, title: str, stored: bool) -> None:
    settings.LLMCACHE = {"CACHE": None, "ADMIT": "tests.test_admission.no_short_titles"}
    model.behaviour.answer_with = {"title": title}
    with llmcache.capture() as calls:
        assert make_client(model).create(**CALL).title == title
    assert calls[0].stored is stored
    assert ("ADMIT" in calls[0].reason) is not stored


def test_a_rule_that_fails_does_no_harm(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "ADMIT": "tests.test_admission.failing_rule"}
    with llmcache.capture() as calls:
        assert make_client(model).create(**CALL).title
    assert calls[0].stored is False
    assert "RuntimeError" in calls[0].reason
