"""The pages of entries that came over HTTP, in each dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from llmcache.admin.entries.content import Answer, Question, read_answer, read_question
from llmcache.admin.entries.over_http import read_conversation, read_said
from llmcache.store.rows import tier as durable
from tests.support.admin import page_of, text_of
from tests.support.dialects import Model
from tests.support.embedders import EMBEDDERS
from tests.support.http import SDKS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


@pytest.fixture
def dialects() -> Iterator[Model]:
    with Model() as model:
        yield model


def asked(dialects: Model, name: str, way: str) -> Any:
    sdk = SDKS[name]
    ask: Any = getattr(sdk, way)
    ask(llmcache.wrap(sdk.make(dialects.root, False)), ["Which city?"], is_async=False)
    return durable.entries().get()


def spoken(messages: list[Any]) -> list[tuple[str, str]]:
    return [(each.kind, part.text.shown) for each in messages for part in each.parts]


@pytest.mark.parametrize("way", ["answers", "streams"])
@pytest.mark.parametrize("name", SDKS)
def test_question_and_answer_are_shown(
    dialects: Model, name: str, way: str, admin_client: Any
) -> None:
    entry = asked(dialects, name, way)
    question, answer = read_question(entry), read_answer(entry)
    assert isinstance(question, Question)
    assert isinstance(answer, Answer)
    assert spoken(question.messages) == [("user", "Which city?")]
    assert spoken(answer.said) == [("assistant", '{"name": "Rome", "hills": 1}')]
    page = text_of(admin_client.get(page_of(entry)))
    assert "Which city?" in page
    assert "llmcache.wrap(httpx.Client()" in page


@pytest.mark.parametrize("name", EMBEDDERS)
def test_the_page_of_a_vector_shows_its_text(dialects: Model, name: str, admin_client: Any) -> None:
    sdk = EMBEDDERS[name]
    client = llmcache.wrap(sdk.make(dialects.root, False))
    sdk.embedded(client, [["Which city?", "Which river?"]], is_async=False)
    for entry in durable.entries().order_by("pk"):
        question = read_question(entry)
        assert isinstance(question, Question)
        [(kind, text)] = spoken(question.messages)
        assert kind == "user"
        assert text in {"Which city?", "Which river?"}
        assert text in text_of(admin_client.get(page_of(entry)))


def test_the_call_on_the_page_has_the_key_of_the_entry(dialects: Model) -> None:
    entry = asked(dialects, "openai chat", "answers")
    from llmcache.admin.entries.export import python_call

    code = python_call(entry)
    assert code is not None
    with llmcache.capture() as calls:
        exec(code, {})
    assert [(call.outcome, call.key) for call in calls] == [("hit", entry.key)]


def test_instructions_tools_and_results_have_their_speakers() -> None:
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "output": "Rome"}
    asked = {"instructions": "Be brief.", "input": [{"role": "user", "content": "?"}, call, result]}
    kinds = [each.kind for each in read_conversation(asked)]
    assert kinds == ["system", "user", "assistant", "tool"]
    system = {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": []}
    assert spoken(read_conversation(system)) == [("system", "Be brief.")]
    texts = {"input": ["one", "two"]}
    assert spoken(read_conversation(texts)) == [("user", "one"), ("user", "two")]
    [(kind, text)] = spoken(read_conversation({"prompt": {"id": "pmpt_1", "version": "2"}}))
    assert kind == "user"
    assert "pmpt_1" in text
    assert spoken(read_said({"output": [call]})) == [("assistant", "{}")]
    assert read_said({"data": [{"embedding": [0.1]}]}) == []
