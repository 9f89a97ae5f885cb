"""A question to explain."""

from __future__ import annotations

from typing import Any

import pytest

import llmcache
from project.standin.server import StandIn
from tests.support.ticket import Ticket

transactional = pytest.mark.django_db(transaction=True)

STORY = "The printer is on fire. " + "It burns since this morning, page after page. " * 3

TEXT = STORY + "Please hurry!"

MESSAGES = [
    {"role": "system", "content": "Extract the ticket."},
    {"role": "user", "content": TEXT},
]

CALL: dict[str, Any] = {"response_model": Ticket, "messages": MESSAGES, "context": {"id": 1}}


def make_client(model: StandIn, name: str = "openai/gpt-4.1-mini", **kwargs: Any) -> Any:
    arguments = {"api_key": "k", "base_url": model.url, "namespace": "support"} | kwargs
    return llmcache.from_provider(name, default_headers={"Connection": "close"}, **arguments)


def asking(text: str) -> list[dict[str, str]]:
    return [MESSAGES[0], {"role": "user", "content": text}]


def changed_lines(diff: str | None) -> list[str]:
    """The lines that a diff takes out and puts in, without its head."""
    assert diff is not None
    return [line for line in diff.splitlines()[2:] if line[:1] in "+-"]
