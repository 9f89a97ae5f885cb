"""Clients that ask the stand-in for a model, and a call to make of them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import instructor
import openai

import llmcache
from project.standin.server import StandIn
from tests.support.ticket import Ticket

MESSAGES = [
    {"role": "system", "content": "Extract the ticket."},
    {"role": "user", "content": "The printer is on fire."},
]

CALL: dict[str, Any] = {"response_model": Ticket, "messages": MESSAGES}

# So that the SDK leaves no connection behind that nobody closes.
CLOSE = {"Connection": "close"}


def make_client(model: StandIn, name: str = "openai/gpt-4.1-mini", **kwargs: Any) -> Any:
    headers = CLOSE | kwargs.pop("default_headers", {})
    arguments = {"api_key": "k", "base_url": model.url} | kwargs
    return llmcache.from_provider(name, default_headers=headers, **arguments)


def make_plain_client(endpoint: StandIn, **kwargs: Any) -> Any:
    return instructor.from_openai(make_sdk(endpoint), **kwargs)


def make_sdk(model: StandIn) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=model.url, default_headers=CLOSE)


def outcomes(calls: list[Any]) -> list[tuple[str, str | None]]:
    return [(call.outcome, call.tier) for call in calls]


class Scripted:
    """A function that `instructor` asks in the place of an SDK; it notes what goes on."""

    def __init__(self, seconds: float = 0.0, fails: frozenset[str] = frozenset()) -> None:
        self.seconds, self.fails = seconds, fails
        self.asked: list[str] = []
        self.running = self.most = 0
        self.threads: set[int] = set()
        self.lock = threading.Lock()

    def __call__(self, **arguments: Any) -> Any:
        text = self._begin(arguments)
        time.sleep(self.seconds)
        return self._end(text)

    def _begin(self, arguments: dict[str, Any]) -> str:
        text = str(arguments["messages"][-1]["content"])
        with self.lock:
            self.asked.append(text)
            self.threads.add(threading.get_ident())
            self.running += 1
            self.most = max(self.most, self.running)
        return text

    def _end(self, text: str) -> Any:
        from openai.types.chat import ChatCompletion

        with self.lock:
            self.running -= 1
        if text in self.fails:
            raise ConnectionError(text)
        function = {"name": "Ticket", "arguments": json.dumps({"title": text})}
        call = {"id": "1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return ChatCompletion.model_validate(
            {
                "id": "1",
                "created": 1,
                "model": "m",
                "object": "chat.completion",
                "choices": [choice],
            }
        )

    def client(self) -> Any:
        plain = instructor.patch(create=self.__call__, mode=instructor.Mode.TOOLS)
        made = instructor.Instructor(client=None, create=plain, mode=instructor.Mode.TOOLS)
        return llmcache.wrap(made, model="m", endpoint="scripted")


def make_adapted_client(model: StandIn, cache: llmcache.DjangoCache, **kwargs: Any) -> Any:
    return instructor.from_provider(
        "openai/gpt-4.1-mini",
        cache=cache,
        cache_namespace="support",
        api_key="k",
        base_url=model.url,
        default_headers=CLOSE,
        **kwargs,
    )
