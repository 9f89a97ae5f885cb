"""Functions and models whose answers are made of other answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationInfo, field_validator

import llmcache
from project.standin.server import StandIn
from tests.support.clients import make_client
from tests.support.ticket import Ticket

clients: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _clients(model: StandIn) -> Iterator[None]:
    clients["plain"] = make_client(model, namespace="inside")
    clients["awaited"] = make_client(model, namespace="inside", async_client=True)
    yield
    clients.clear()


def prompt(text: str) -> dict[str, Any]:
    return {"response_model": Ticket, "messages": [{"role": "user", "content": text}]}


def ask(text: str, **more: Any) -> Ticket:
    ticket: Ticket = clients["plain"].create(**prompt(text), **more)
    return ticket


@llmcache.cached(tags=lambda number: [f"document:{number}"], namespace="outside")
def title(number: int, text: str = "Where is my order?") -> str:
    return ask(text).title


@llmcache.cached(namespace="outside")
async def atitle(number: int, text: str = "Where is my order?") -> str:
    return str((await clients["awaited"].create(**prompt(text))).title)


@llmcache.cached(tags=["sentences"])
def sentence(number: int) -> str:
    return f"{title(number)}!"


@llmcache.cached(tags=lambda number: [f"page:{number}"])
def page(number: int) -> str:
    return f"{sentence(number)} {ask('And how much is it?').title}"


@llmcache.cached
def titles(number: int) -> Iterator[str]:
    yield title(number)
    yield ask("The second one, please.").title


class Checked(BaseModel):
    title: str

    @field_validator("title")
    @classmethod
    def check(cls, value: str, info: ValidationInfo) -> str:
        ask("Is this a good title?")
        return value


@llmcache.cached
def several(texts: list[str]) -> list[str]:
    results = llmcache.create_many(clients["plain"], [prompt(text) for text in texts])
    return [result.unwrap().title for result in results]


def asked(model: StandIn, work: Callable[[], Any], times: int = 1) -> int:
    before = len(model.calls)
    for _ in range(times):
        work()
    return len(model.calls) - before
