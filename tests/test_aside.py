"""What a library looks up and hands over by itself, on each combination of tiers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import llmcache
from llmcache.aside import Aside, Form
from llmcache.codec.answers import StoredAnswer
from llmcache.exceptions import InvalidArgument
from llmcache.outcomes import Call
from llmcache.policy import Policy
from llmcache.store.rows import tier as durable
from tests.support.backends import Backend, unreachable

pytestmark = pytest.mark.django_db(transaction=True)

ANSWER = {"model": "m", "finish_reason": "stop", "usage": {"input_tokens": 5, "output_tokens": 7}}


def encode(value: Any) -> StoredAnswer | None:
    return None if value == "unequal" else StoredAnswer(json.dumps(value).encode())


def decode(stored: StoredAnswer) -> Any:
    return json.loads(stored.answer)


def completion(stored: StoredAnswer) -> dict[str, Any]:
    told = decode(stored)
    return told if isinstance(told, dict) else {}


FORM = Form("the cache of a test", "test", "tests", encode, decode, completion)


class Sync:
    def __init__(self, **told: Any) -> None:
        self.aside = Aside(FORM, Policy().changed(**told))

    def get(self, text: str = "question", **told: Any) -> Any:
        return self.aside.get(text, **told)

    def set(self, value: Any = ANSWER, text: str = "question", **told: Any) -> None:
        self.aside.set(text, value, **told)


class Async(Sync):
    def get(self, text: str = "question", **told: Any) -> Any:
        return asyncio.run(self.aside.aget(text, **told))

    def set(self, value: Any = ANSWER, text: str = "question", **told: Any) -> None:
        asyncio.run(self.aside.aset(text, value, **told))


@pytest.fixture(params=[Sync, Async])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def told(calls: list[Call]) -> list[tuple[str, bool]]:
    return [(str(call.outcome), call.stored) for call in calls]


def test_what_was_handed_over_is_found(backend: Backend, make: Any) -> None:
    with llmcache.capture() as calls:
        assert make().get() is None
        make().set()
        assert make().get() == ANSWER
    assert told(calls) == [("miss", True), ("hit", False)]
    assert calls[0].spent is not None
    assert (calls[0].model, calls[0].spent.input_tokens) == ("m", 5)
    assert calls[1].saved is not None
    assert calls[1].saved.output_tokens == 7


def test_a_coroutine_and_a_thread_share_entries(backend: Backend) -> None:
    Async().set()
    assert Sync().get() == ANSWER


def test_namespaces_do_not_see_each_other(make: Any) -> None:
    make(namespace="a").set()
    assert make(namespace="b").get() is None
    assert make(namespace="b").get(namespace="a") == ANSWER
    with llmcache.override(namespace="a"):
        assert make(namespace="b").get() == ANSWER
        assert make(namespace="a").get(namespace="b") is None


def test_what_is_overridden_counts(make: Any) -> None:
    cache = make(tags=["own"], ttl=600)
    with llmcache.override(tags=["more"], ttl=60, sample=1):
        cache.set()
        assert cache.get() == ANSWER
    assert cache.get() is None
    row = durable.entries().get()
    assert {tag.tag for tag in row.tags.all()} == {"own", "more"}
    assert row.expires_at is not None
    assert 56 < (row.expires_at - row.created_at).total_seconds() < 61


@pytest.mark.parametrize("mode", ["reload", "no-store"])
def test_modes(make: Any, mode: Any) -> None:
    make().set()
    with llmcache.override(mode=mode):
        assert make().get() is None
        make().set({"another": 1})
    assert make().get() == ({"another": 1} if mode == "reload" else ANSWER)


def test_what_the_provider_did_not_finish_is_not_stored(make: Any) -> None:
    with llmcache.capture() as calls:
        make().set({**ANSWER, "finish_reason": "length"})
    assert (calls[0].stored, calls[0].reason_code) == (False, "cut-short")
    assert make().get() is None


def test_what_would_come_back_otherwise_takes_what_was_there_along(make: Any) -> None:
    make().set()
    make().set("unequal")
    assert make().get() is None


def test_what_is_invalidated_while_it_is_asked_for_is_not_stored(make: Any) -> None:
    cache = make(namespace="a")
    assert cache.get() is None
    llmcache.invalidate(namespace="a")
    with llmcache.capture() as calls:
        cache.set()
    assert calls[0].reason_code == "invalidated"
    assert cache.get() is None


def test_no_time_to_live_stores_nothing(make: Any) -> None:
    make().set(ttl=0)
    assert make().get() is None


def test_a_database_that_is_gone_is_no_trouble_of_the_caller(make: Any) -> None:
    with unreachable("default"), llmcache.capture() as calls:
        assert make().get() is None
        make().set()
    assert told(calls) == [("miss", False)]


def test_a_damaged_entry_is_a_miss(make: Any) -> None:
    make().set()
    durable.entries().update(payload=b"damaged")
    assert make().get() is None


def test_without_a_namespace_it_is_told_and_not_kept(make: Any, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None}
    with llmcache.capture() as calls:
        assert make().get() is None
        make().set()
    assert [(call.outcome, call.reason_code) for call in calls] == [("bypass", "no-namespace")]
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None, "REQUIRE_NAMESPACE": True}
    with pytest.raises(InvalidArgument):
        make().get()
