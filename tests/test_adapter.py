"""`DjangoCache` behind instructor's own client, on every combination of database and hot tier."""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instructor.cache import AutoCache, load_cached_response, store_cached_response
from pydantic import BaseModel

import llmcache
from llmcache import store
from llmcache.codec.equality import same
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.admin import page_of, text_of
from tests.support.backends import Backend, backend_parameters, unreachable
from tests.support.clients import CALL, make_adapted_client


def test_two_clients_share_entries(model: StandIn, backend: Backend) -> None:
    live = make_adapted_client(model, llmcache.DjangoCache()).create(**CALL)
    hit = make_adapted_client(model, llmcache.DjangoCache()).create(**CALL)
    assert hit.model_dump() == live.model_dump()
    assert hit._raw_response.id == live._raw_response.id
    assert len(model.calls) == 1


def test_an_asynchronous_client(model: StandIn, backend: Backend) -> None:
    """instructor calls the cache on the event loop: Django must not refuse the work."""
    client = make_adapted_client(model, llmcache.DjangoCache(), async_client=True)

    async def main() -> None:
        await client.create(**CALL)
        await client.create(**CALL)

    asyncio.run(main())
    assert len(model.calls) == 1


@pytest.mark.django_db(transaction=True)
def test_the_row_tells_what_can_be_told(model: StandIn) -> None:
    make_adapted_client(model, llmcache.DjangoCache(namespace="n", ttl=60)).create(**CALL)
    row = durable.entries().get()
    assert (row.namespace, row.provider, row.model) == ("n", "instructor", "gpt-4.1-mini")
    assert row.output_tokens
    assert row.expires_at
    assert 56 < (row.expires_at - row.created_at).total_seconds() < 61
    assert row.stale_until == row.expires_at  # or no expiry would remove it


@pytest.mark.django_db(transaction=True)
def test_invalidation_reaches_it(model: StandIn) -> None:
    client = make_adapted_client(model, llmcache.DjangoCache(namespace="n"))
    client.create(**CALL)
    assert llmcache.invalidate(namespace="n").entries == 1
    client.create(**CALL)
    assert len(model.calls) == 2


@pytest.mark.django_db(transaction=True)
def test_namespaces_do_not_see_each_other(model: StandIn) -> None:
    for namespace in ("a", "b", "a"):
        make_adapted_client(model, llmcache.DjangoCache(namespace=namespace)).create(**CALL)
    assert len(model.calls) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("ttl", "stored"), [(60, True), (0, False), (-5, False), (True, False)])
def test_what_instructor_takes_for_a_ttl(
    model: StandIn, ttl: Any, stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_adapted_client(model, llmcache.DjangoCache())
    with caplog.at_level(logging.WARNING, "llmcache"):
        assert client.create(**CALL, cache_ttl=ttl).title
    assert durable.entries().exists() is stored
    # What cannot be meant is said; the answer, which was paid for, is returned.
    assert bool(caplog.records) is (ttl is True or ttl < 0)


@pytest.mark.parametrize("arguments", [{"ttl": -1}, {"ttl": True}, {"namespace": ""}], ids=str)
def test_arguments_that_cannot_be_meant(arguments: dict[str, Any]) -> None:
    with pytest.raises(llmcache.InvalidArgument):
        llmcache.DjangoCache(**arguments)


@pytest.mark.parametrize(
    "backend", backend_parameters(["default", "postgres", "mariadb"], [None]), indirect=True
)
def test_with_the_database_down_the_model_is_asked(model: StandIn, backend: Backend) -> None:
    client = make_adapted_client(model, llmcache.DjangoCache())
    with unreachable(backend.database):
        assert client.create(**CALL).title
        assert client.create(**CALL).title
    assert len(model.calls) == 2


class Answer(BaseModel):
    title: str


def answer_with(response: Any) -> Answer:
    """An answer as instructor makes it, with the provider's response."""
    answer = Answer(title="Grüße")
    object.__setattr__(answer, "_raw_response", response)
    return answer


def circular() -> dict[str, Any]:
    """What instructor can write down as Python does only, which is no JSON."""
    value: dict[str, Any] = {"id": "chatcmpl-1"}
    value["itself"] = value
    return value


RESPONSES = [
    None,
    Answer(title="any model"),
    {"id": "1", "model": "gpt-4.1-mini", "choices": [{"finish_reason": "stop"}]},
    {"any": "dict", "when": date(2026, 1, 2), "model": {"no": "name"}},
    ["a", "list"],
    "a text",
    "",
    SimpleNamespace(id="1"),
    circular(),
    float("nan"),
]


@pytest.mark.django_db
@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: type(response).__name__)
def test_what_instructor_falls_back_to_comes_back(response: Any, admin_client: Client) -> None:
    """As from instructor's own cache, whatever a provider's SDK responds with."""
    mine, own = llmcache.DjangoCache(), AutoCache()
    hits = []
    for cache in (mine, own):
        store_cached_response(cache, "key", answer_with(response))
        hits.append(load_cached_response(cache, "key", Answer))
    assert mine.get("key") == own.get("key")
    responses = [getattr(hit, "_raw_response", None) for hit in hits]
    assert repr(responses[0]) == repr(responses[1])
    entry = durable.entries().get()
    assert "Grüße" in text_of(admin_client.get(page_of(entry)))
    assert admin_client.get(page_of(entry, "export")).json()["answer"] == {"title": "Grüße"}


VALUES = [
    "no JSON",
    '{"title": "bare JSON"}',
    "[]",
    '{"model": 1, "raw": null}',
    '{"model": "no JSON", "raw": null}',
    '{"model":"{}","raw":null}',  # (not as instructor spaces it)
    '{"model": "{}", "raw": null, "more": 1}',
    '{"model": "\\ud800", "raw": null}',
    "\ud800",
    "",
    b"bytes \xff",
    None,
    True,
    1,
    1.0,
    10**40,
    float("inf"),
    {"plain": [1, "two", {"three": b"3"}, None, 0.5, {}], "": []},
]


@pytest.mark.django_db
@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_whatever_a_person_gives_comes_back(value: Any, admin_client: Client) -> None:
    cache = llmcache.DjangoCache()
    cache.set("key", value)
    assert same(cache.get("key"), value)
    entry = durable.entries().get()
    assert "cannot be read" not in text_of(admin_client.get(page_of(entry)))
    assert admin_client.get(page_of(entry, "export")).json()["unreadable"] == {}


@pytest.mark.django_db
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_value_of_these_comes_back(value: Any) -> None:
    cache = llmcache.DjangoCache()
    cache.set("key", value)
    assert same(cache.get("key"), value)


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


class Text(str):
    __slots__ = ()


UNEQUAL = [
    (1, 2),
    {1: "a number"},
    {"a", "set"},
    Text("of a class of its own"),
    Answer(title="a model"),
    {"llmcache bytes": "YQ=="},
    object(),
    circular(),
    deep(),
    10**5000,
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", UNEQUAL, ids=lambda value: type(value).__name__)
def test_what_would_not_come_back_equal_is_not_stored(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is what was there taken for it."""
    cache = llmcache.DjangoCache()
    cache.set("key", "older")
    with llmcache.capture() as calls:
        cache.set("key", value)
    assert cache.get("key") is None
    assert not durable.entries().exists()
    assert [(call.stored, call.reason_code) for call in calls] == [(False, "not-reproducible")]
    assert "it would come back different" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_what_is_too_large_is_not_taken_for_what_was_there(settings: Any) -> None:
    settings.LLMCACHE = {"MAX_ENTRY_BYTES": 1000}
    cache = llmcache.DjangoCache()
    cache.set("key", "older")
    cache.set("key", "x" * 2000)
    assert cache.get("key") is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("door", ["key", "namespace", "everything"])
def test_what_a_person_stored_is_invalidated(door: str) -> None:
    cache = llmcache.DjangoCache(namespace="n")
    with llmcache.capture() as calls:
        cache.set("plain", {"a": 1})
        assert cache.get("plain") == {"a": 1}
    key = calls[-1].key
    doors: dict[str, Any] = {"key": {"keys": [key]}, "namespace": {"namespace": "n"}}
    assert llmcache.invalidate(**doors.get(door, {"everything": True})).entries == 1
    assert cache.get("plain") is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", ["", "\ud800", None, 1, b"bytes"], ids=ascii)
def test_no_key_raises(key: Any) -> None:
    cache = llmcache.DjangoCache()
    cache.set(key, "value")
    assert cache.get(key) in {"value", None}


@pytest.mark.django_db(transaction=True)
def test_it_can_be_made_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "lookup", lambda key: pytest.fail("asked too early"))
    llmcache.DjangoCache()
