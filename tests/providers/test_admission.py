"""What the provider did not finish is returned, and not stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import instructor
import pytest
from google.genai.types import FinishReason
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

import llmcache
from llmcache.checks import check_settings
from llmcache.providers.admission import ends_in, why_unfinished
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.shapes import _nested

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


RESPONSE: dict[str, Any] = {
    "object": "response",
    "incomplete_details": None,
    "error": None,
    "output": [],
}

WHOLE: list[dict[str, Any]] = [
    {"choices": [{"finish_reason": "stop"}]},
    {"choices": [{"finish_reason": "tool_calls"}, {"finish_reason": "Function_Call"}]},
    {"choices": [{"finish_reason": "STOP", "error": None}], "error": None},
    {"stop_reason": "end_turn", "choices": None},
    {"stop_reason": "Tool_Use"},
    {"stop_reason": "stop_sequence"},
    {"candidates": [{"finish_reason": FinishReason.STOP}]},
    {"candidates": [{"finish_reason": 1}]},
    {"candidates": [{"finishReason": "STOP"}]},
    {"finish_reason": "COMPLETE"},
    {"finish_reason": "TOOL_CALL"},
    {"finish_reason": "REASON_STOP"},
    {"stopReason": "end_turn"},
    RESPONSE | {"status": "completed"},
    RESPONSE | {"status": "COMPLETED", "output": [{"status": "completed"}, {"status": None}]},
]

NOT_WHOLE: list[tuple[dict[str, Any], str]] = [
    ({"choices": [{"finish_reason": "length"}]}, "cut short"),
    ({"choices": [{"finish_reason": "error"}]}, "(error)"),
    ({"choices": [{"finish_reason": "stop"}, {"finish_reason": "eos"}]}, "(eos)"),
    ({"choices": [{"finish_reason": "stop"}, {"finish_reason": None}]}, "did not say"),
    ({"choices": [{"finish_reason": ""}]}, "did not say"),
    ({"choices": [{"message": {"content": "Yes."}}]}, "did not say"),
    ({"choices": [{"finish_reason": "completed"}]}, "(completed)"),
    ({"choices": []}, "did not say"),
    ({"choices": [{"finish_reason": "stop"}], "error": {"code": 502}}, "an error"),
    ({"choices": [{"finish_reason": "stop", "error": {"code": 502}}]}, "an error"),
    ({"choices": [{"finish_reason": "stop", "message": {"refusal": "No."}}]}, "refused"),
    ({"choices": [{"finish_reason": "my secret, \n and more"}]}, "(a word that cannot be shown)"),
    ({"choices": [{"finish_reason": ["stop"]}]}, "(list)"),
    ({"stop_reason": "pause_turn"}, "(pause_turn)"),
    ({"stop_reason": "refusal"}, "refused"),
    ({"stop_reason": None}, "did not say"),
    ({"candidates": None}, "did not say"),
    ({"candidates": [{"finish_reason": None}]}, "did not say"),
    ({"candidates": [{"finish_reason": FinishReason.SAFETY}]}, "filtered"),
    ({"candidates": [{"finish_reason": FinishReason.OTHER}]}, "(other)"),
    ({"candidates": [{"finish_reason": 2}]}, "(int)"),
    ({"finish_reason": "MAX_TOKENS"}, "cut short"),
    ({"finish_reason": "ERROR_TOXIC"}, "(error_toxic)"),
    ({"stopReason": "guardrail_intervened"}, "filtered"),
    ({"incomplete_details": {"reason": "max_output_tokens"}}, "cut short"),
    ({"incomplete_details": {"reason": "content_filter"}}, "filtered"),
    (RESPONSE | {"status": "incomplete"}, "(incomplete)"),
    (RESPONSE | {"status": "queued"}, "(queued)"),
    (RESPONSE | {"status": None}, "did not say"),
    (RESPONSE | {"status": None, "output": [{"status": "completed"}]}, "did not say"),
    (RESPONSE | {"status": "completed", "output": [{"status": "incomplete"}]}, "(incomplete)"),
    (RESPONSE | {"status": "completed", "error": {"code": "server_error"}}, "an error"),
    ({"output": [{"content": [{"type": "refusal", "refusal": "No."}]}]}, "refused"),
]

UNKNOWN: list[Any] = [None, "text", {"answer": 42}, [{"finish_reason": "length"}], {"status": "x"}]


@pytest.mark.parametrize("completion", WHOLE, ids=str)
def test_an_answer_is_whole_where_the_provider_says_so(completion: dict[str, Any]) -> None:
    assert why_unfinished(completion) is why_unfinished(_nested(completion)) is None


@pytest.mark.parametrize(("completion", "reason"), NOT_WHOLE, ids=str)
def test_any_other_word_is_the_reason(completion: dict[str, Any], reason: str) -> None:
    assert reason in str(why_unfinished(completion))
    assert reason in str(why_unfinished(_nested(completion)))


@pytest.mark.parametrize("completion", UNKNOWN, ids=str)
def test_what_no_provider_sends_has_no_ending_to_judge(completion: Any) -> None:
    assert why_unfinished(completion) is why_unfinished(_nested(completion)) is None


def test_the_words_of_a_gateway_are_named_in_the_settings(settings: Any) -> None:
    settings.LLMCACHE = {"FINISHED_REASONS": ["EOS", "done"]}
    assert not why_unfinished({"choices": [{"finish_reason": "eos"}, {"finish_reason": "DONE"}]})
    assert ends_in({"choices": [{"finish_reason": "eos"}]}) == {0: True}
    assert "(nope)" in str(why_unfinished({"choices": [{"finish_reason": "nope"}]}))


@pytest.mark.parametrize("value", ["eos", [""], [None], 7], ids=repr)
def test_the_words_of_a_gateway_are_a_list(settings: Any, value: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "FINISHED_REASONS": value}
    assert [message.id for message in check_settings(None)] == ["llmcache.E002"]


class Kept(BaseModel):
    completion: dict[str, Any]


class TestDecorated:
    """A function that gives back what a provider sent."""

    @pytest.mark.parametrize("word", ["stop", "length"])
    def test_the_completion_of_an_sdk(self, word: str) -> None:
        @llmcache.cached
        def ask(word: str) -> ChatCompletion:
            return completion_ending_with(word)

        assert [call.stored for call in _calls(ask, word)] == [word == "stop"]

    @pytest.mark.parametrize("word", ["end_turn", "max_tokens"])
    def test_the_json_of_one_beside_something_else(self, word: str) -> None:
        @llmcache.cached
        def ask(word: str) -> tuple[str, dict[str, Any]]:
            return "x", {"stopReason": word, "output": {}}

        assert [call.stored for call in _calls(ask, word)] == [word == "end_turn"]

    @pytest.mark.parametrize("word", ["end_turn", "max_tokens"])
    def test_one_deep_inside(self, word: str) -> None:
        @llmcache.cached
        def ask(word: str) -> dict[str, list[Kept]]:
            return {"all": [Kept(completion={"stopReason": word, "output": {}})]}

        assert [call.stored for call in _calls(ask, word)] == [word == "end_turn"]

    @pytest.mark.parametrize("word", ["end_turn", "max_tokens"])
    def test_those_of_a_generator(self, word: str) -> None:
        @llmcache.cached
        def ask(word: str) -> Iterator[dict[str, Any]]:
            yield {"stopReason": "end_turn", "output": {}}
            yield {"stopReason": word, "output": {}}

        assert [call.stored for call in _calls(lambda word: list(ask(word)), word)] == [
            word == "end_turn"
        ]

    def test_what_only_looks_a_little_like_one_is_stored(self) -> None:
        @llmcache.cached
        def poll(word: str) -> dict[str, Any]:
            return {"choices": ["tea", "coffee"], "status": "open", "error": "no"}

        assert [call.stored for call in _calls(poll, "x")] == [True]


def completion_ending_with(word: str) -> ChatCompletion:
    message = {"role": "assistant", "content": "Tea."}
    choice = {"index": 0, "finish_reason": word, "message": message}
    return ChatCompletion.model_validate(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    )


def _calls(function: Any, word: str) -> list[llmcache.Call]:
    with llmcache.capture() as calls:
        function(word)
    return list(calls)


def test_what_instructor_gives_to_the_adapter() -> None:
    cache = llmcache.DjangoCache()
    for key, word in (("whole", "stop"), ("cut", "length"), ("paused", "pause")):
        raw = completion_ending_with("stop").model_dump()
        raw["choices"][0]["finish_reason"] = word
        cache.set(key, json.dumps({"model": "{}", "raw": json.dumps(raw)}))
    assert [cache.get(key) is not None for key in ("whole", "cut", "paused")] == [
        True,
        False,
        False,
    ]


def no_short_titles(answer: Any, completion: Any) -> bool:
    assert completion.model
    return len(answer.title) > 3


def failing_rule(answer: Any, completion: Any) -> bool:
    raise RuntimeError("a rule of the project fails")


@pytest.mark.parametrize(("title", "stored"), [("Fire", True), ("No", False)])
def test_a_rule_of_the_project(model: StandIn, settings: Any, title: str, stored: bool) -> None:
    settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.no_short_titles"}
    model.behaviour.answer_with = {"title": title}
    with llmcache.capture() as calls:
        assert make_client(model).create(**CALL).title == title
    assert calls[0].stored is stored
    assert ("ADMIT" in calls[0].reason) is not stored


def test_a_rule_that_fails_does_no_harm(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.failing_rule"}
    with llmcache.capture() as calls:
        assert make_client(model).create(**CALL).title
    assert calls[0].stored is False
    assert "RuntimeError" in calls[0].reason
