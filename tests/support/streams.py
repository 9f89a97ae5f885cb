"""Asking for a stream, of each provider and in each mode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import instructor
import openai
import pytest
from instructor import Mode

import llmcache
from project.standin.server import StandIn
from tests.support.clients import CLOSE, MESSAGES
from tests.support.ticket import Ticket


class Asking:
    """A client whose streams are read to their end, sync or async alike."""

    def __init__(self, client: Any, limits: dict[str, Any], is_async: bool) -> None:
        self.client = client
        self.limits = limits
        self.is_async = is_async

    def iterable(self, response_model: Any = Ticket, **arguments: Any) -> list[Any]:
        return self._read(self.client.create_iterable, response_model, arguments)

    def partial(self, response_model: Any = Ticket, **arguments: Any) -> list[Any]:
        return self._read(self.client.create_partial, response_model, arguments)

    def _read(self, create: Callable[..., Any], model: Any, arguments: dict[str, Any]) -> list[Any]:
        call = {"response_model": model, "messages": MESSAGES} | self.limits | arguments
        if self.is_async:
            return asyncio.run(_listed(create, call))
        return list(create(**call))


async def _listed(create: Callable[..., Any], call: dict[str, Any]) -> list[Any]:
    return [item async for item in create(**call)]


def make_asking(model: StandIn, provider: str, mode: Mode, is_async: bool, **kwargs: Any) -> Asking:
    sdk: Any
    if provider == "openai":
        openai_class: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        sdk = openai_class(api_key="k", base_url=model.url, default_headers=CLOSE, max_retries=0)
        client = instructor.from_openai(sdk, mode=mode)
        return Asking(llmcache.wrap(client, model="gpt-4.1-mini", **kwargs), {}, is_async)
    anthropic_class: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    sdk = anthropic_class(api_key="k", base_url=model.root, default_headers=CLOSE, max_retries=0)
    client = instructor.from_anthropic(sdk, mode=mode)
    return Asking(llmcache.wrap(client, model="claude", **kwargs), {"max_tokens": 1000}, is_async)


FIRE, FLOOD = {"title": "Fire", "priority": 1}, {"title": "Flood"}

TICKETS = [Ticket(**FIRE), Ticket(**FLOOD)]

MODES = [
    ("openai", Mode.TOOLS),
    ("openai", Mode.JSON),
    ("openai", Mode.JSON_SCHEMA),
    ("openai", Mode.RESPONSES_TOOLS),
    ("anthropic", Mode.TOOLS),
]


def said(calls: list[Any]) -> list[tuple[str, bool]]:
    return [(str(call.outcome), call.stored) for call in calls]


WAYS = pytest.mark.parametrize("way", ["iterable", "partial"])


def answer_with_tickets(model: StandIn, way: str) -> None:
    model.behaviour.answer_with = {"tasks": [FIRE, FLOOD]} if way == "iterable" else FIRE
