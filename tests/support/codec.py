"""Settings and values of the tests of the codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from anthropic.types import Message
from hypothesis import settings as hypothesis_settings
from openai.types.chat import ChatCompletion
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
)

import llmcache

KEY = "0123456789abcdef" * 4

quick = hypothesis_settings(deadline=None, max_examples=150)

# Sameness


class Liar(BaseModel):
    value: int

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""
    _draft: bool = PrivateAttr(False)


class Alike(BaseModel):
    title: str = ""


@dataclass
class Place:
    name: str
    visits: Any = 0


NAN = float("nan")

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)

# Completions

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "small",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Grüße", "reasoning": {"made": ["up"]}},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.1},
    "x_groq": {"id": "req"},
    "system_fingerprint": None,
}

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, {"b": None}]}},
        {"type": "text", "text": "?", "of_the_future": [1]},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2, "brand_new": 3},
}


class Usage(BaseModel):
    tokens: int = Field(alias="tokenCount")


class Own(BaseModel):
    """A completion of an SDK that builds models by validating."""

    text: str
    usage: Usage | None = None

    class Inner(BaseModel):
        text: str = ""


LIVE: dict[str, Callable[[], BaseModel]] = {
    "openai": lambda: ChatCompletion.construct(**CHAT),
    "anthropic": lambda: Message.construct(**MESSAGE),
    "other": lambda: Own.model_validate({"text": "a", "usage": {"tokenCount": 3}}),
    "nested class": lambda: Own.Inner(text="a"),
}


def twice(ask: Callable[[], Any]) -> tuple[Any, Any]:
    """The live answer and the hit."""
    with llmcache.capture() as calls:
        live, hit = ask(), ask()
    assert [str(call.outcome) for call in calls] == ["miss", "hit"], calls[0].reason
    return live, hit
