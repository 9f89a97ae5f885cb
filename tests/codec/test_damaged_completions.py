"""A stored response that is damaged raises an error of llmcache, and no other."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import llmcache
from llmcache.codec import completions
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, seal
from llmcache.exceptions import CorruptEntry
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import MESSAGES, make_client
from tests.support.ticket import Ticket

CLASSES = [
    "openai.types.chat.chat_completion:ChatCompletion",
    "anthropic.types.message:Message",
    "tests.support.ticket:Ticket",
    "builtins:dict",
    "no.such:Class",
]
DAMAGED = {
    "cut": b'{"id": "a", "choi',
    "nested": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": b"[1]",
    "a huge number": b'{"created": ' + b"9" * 10_000 + b"}",
    "no text": b'{"id": "\xff"}',
}


def look(class_path: str, data: bytes) -> None:
    loaded = completions.load(Dumped(class_path, data))
    if not isinstance(loaded, dict):
        vars(loaded)


@pytest.mark.parametrize("class_path", CLASSES)
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_bytes_raise_one_error(class_path: str, data: bytes) -> None:
    with pytest.raises(CorruptEntry, match="damaged"):
        look(class_path, data)


@given(st.sampled_from(CLASSES), st.binary(max_size=40) | st.text('{}[]":,a1 ').map(str.encode))
def test_whatever_is_stored_raises_no_other(class_path: str, data: bytes) -> None:
    with suppress(CorruptEntry):
        look(class_path, data)


SDKS = [
    "openai.types.chat.chat_completion:ChatCompletion",
    "google.genai.types:GenerateContentResponse",
    "litellm.types.utils:ModelResponse",
]
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, 1, "x", [], {}, [1], [[]], [{}], {"a": 1}, {"choices": [{}]}]
)
NAMES = st.sampled_from(
    [
        *("choices", "candidates", "usage", "model", "message", "output", "automatic"),
        *("cls", "self", "_fields_set", "values", "model_config", "__class__", "__dict__"),
    ]
)


@pytest.fixture
def _imported(class_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    import_module(class_path.partition(":")[0])


@pytest.mark.filterwarnings("ignore")  # (of the code of LiteLLM)
@pytest.mark.usefixtures("_imported")
@pytest.mark.parametrize("class_path", SDKS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, VALUES, max_size=4))
@example({"choices": [[]], "_fields_set": {"_fields_set": 1}})
@example({"choices": 1, "cls": [None]})
def test_nor_does_what_no_provider_has_sent(class_path: str, fields: dict[str, Any]) -> None:
    with suppress(CorruptEntry):
        look(class_path, json.dumps(fields).encode())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("response_model", [Ticket, list[Ticket], None], ids=str)
def test_an_entry_without_it_is_a_miss(model: StandIn, response_model: Any) -> None:
    client = make_client(model)
    call = {"response_model": response_model, "messages": MESSAGES}
    live = client.create_with_completion(**call) if response_model else client.create(**call)
    row = durable.entries().get()
    planted = StoredAnswer(b'{"title": "x"}', parsed=response_model is not Ticket).pack()
    durable.entries().update(payload=seal(ANSWER, row.key, planted, created=time.time()))
    with llmcache.capture() as calls:
        again = client.create_with_completion(**call) if response_model else client.create(**call)
    assert [call.outcome for call in calls] == ["miss"]
    assert type(again) is type(live)


def test_a_dict_comes_back_as_one() -> None:
    converse = {"stopReason": "end_turn", "usage": {"inputTokens": 5}, "output": {"m": [1, None]}}
    assert completions.load(completions.dump(converse)) == converse
