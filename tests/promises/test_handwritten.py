"""README's hand-written decorators do what it says, and `llmcache.cached` does it beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diskcache
import instructor
import pytest
import redis

import llmcache
from project.standin.server import StandIn
from tests.support import servers
from tests.support.clients import make_plain_client
from tests.support.pages import BLOCKS, FIRST_CALL, PYTHON, Namespace, execute

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.django_db(transaction=True)]

HEADING = "In place of hand-written decorators"
ASKING = """:
    return client.create(response_model=Ticket, messages=[{"role": "user", "content": text}])
"""
QUESTION = "The printer is on fire."


@pytest.fixture
def ours(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """What the Python blocks of the section define."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")
    namespace: Namespace = {"__name__": "readme"}
    for block in PYTHON:
        if block.heading in {FIRST_CALL, HEADING}:
            execute(block, namespace)
    llmcache.invalidate(everything=True)
    return namespace


@pytest.fixture
def theirs(
    ours: Namespace, model: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Namespace]:
    """What the blocks beside them define, with a client that remembers nothing."""
    servers.require(servers.RedisServer)
    monkeypatch.chdir(tmp_path)
    stores: list[Any] = []

    def opened(make: Any, *arguments: Any) -> Any:
        stores.append(make(*arguments))
        return stores[-1]

    with servers.RedisServer() as server:
        namespace: Namespace = {
            "__name__": "readme",
            "Ticket": ours["Ticket"],
            "client": make_plain_client(model, model="gpt-4.1-mini"),
            "functools": functools,
            "diskcache": SimpleNamespace(Cache=functools.partial(opened, diskcache.Cache)),
            "redis": SimpleNamespace(
                Redis=functools.partial(opened, redis.Redis.from_url, server.url)
            ),
        }
        for block in BLOCKS:
            if (block.heading, block.language) == (HEADING, "py"):
                execute(replace(block, code=block.code.replace(": ...\n", ASKING)), namespace)
        yield namespace
        for store in stores:
            store.close()


@pytest.mark.parametrize("name", ["extract", "extract_once", "extract_today"])
def test_both_give_the_same_answer_and_ask_once(
    ours: Namespace, theirs: Namespace, model: StandIn, name: str
) -> None:
    assert isinstance(theirs["client"], instructor.Instructor)
    answers = []
    for namespace in (theirs, ours):
        model.forget()
        answers += [namespace[name](QUESTION), namespace[name](QUESTION)]
        assert len(model.calls) == 1
    # (The class of theirs is one that instructor derived for the call.)
    assert all(isinstance(answer, ours["Ticket"]) for answer in answers)
    assert all(answer.model_dump() == answers[0].model_dump() for answer in answers)
