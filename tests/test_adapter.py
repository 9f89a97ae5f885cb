"""`DjangoCache` behind instructor's own client, on every combination of database and hot tier."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import instructor
import pytest

import llmcache
from llmcache.store import durable, entries
from project.standin.server import StandIn
from tests.conftest import Backend, backend_parameters
from tests.test_client import CALL, CLOSE
from tests.test_trouble import unreachable


def make_client(model: StandIn, cache: llmcache.DjangoCache, **kwargs: Any) -> Any:
    return instructor.from_provider(
        "openai/gpt-4.1-mini",
        cache=cache,
        cache_namespace="support",
        api_key="k",
        base_url=model.url,
        default_headers=CLOSE,
        **kwargs,
    )


def test_two_clients_share_entries(model: StandIn, backend: Backend) -> None:
    live = make_client(model, llmcache.DjangoCache()).create(**CALL)
    hit = make_client(model, llmcache.DjangoCache()).create(**CALL)
    assert hit.model_dump() == live.model_dump()
    assert hit._raw_response.id == live._raw_response.id
    assert len(model.calls) == 1


def test_an_asynchronous_client(model: StandIn, backend: Backend) -> None:
    """instructor calls the cache on the event loop: Django must not refuse the work."""
    client = make_client(model, llmcache.DjangoCache(), async_client=True)

    async def main() -> None:
        await client.create(**CALL)
        await client.create(**CALL)

    asyncio.run(main())
    assert len(model.calls) == 1


@pytest.mark.django_db(transaction=True)
def test_the_row_tells_what_can_be_told(model: StandIn) -> None:
    make_client(model, llmcache.DjangoCache(namespace="n", ttl=60)).create(**CALL)
    row = durable.entries().get()
    assert (row.namespace, row.provider, row.model) == ("n", "instructor", "gpt-4.1-mini")
    assert row.output_tokens
    assert row.expires_at
    assert 56 < (row.expires_at - row.created_at).total_seconds() < 61
    assert row.stale_until == row.expires_at  # or no expiry would remove it


@pytest.mark.django_db(transaction=True)
def test_invalidation_reaches_it(model: StandIn) -> None:
    client = make_client(model, llmcache.DjangoCache(namespace="n"))
    client.create(**CALL)
    assert llmcache.invalidate(namespace="n").entries == 1
    client.create(**CALL)
    assert len(model.calls) == 2


@pytest.mark.django_db(transaction=True)
def test_namespaces_do_not_see_each_other(model: StandIn) -> None:
    for namespace in ("a", "b", "a"):
        make_client(model, llmcache.DjangoCache(namespace=namespace)).create(**CALL)
    assert len(model.calls) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("ttl", "stored"), [(60, True), (0, False), (-5, False), (True, False)])
def test_what_instructor_takes_for_a_ttl(
    model: StandIn, ttl: Any, stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(model, llmcache.DjangoCache())
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
    client = make_client(model, llmcache.DjangoCache())
    with unreachable(backend.database):
        assert client.create(**CALL).title
        assert client.create(**CALL).title
    assert len(model.calls) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", ["no JSON", "[]", '{"model": 1, "raw": null}', b"bytes", None])
def test_what_is_not_instructors_is_not_stored(value: Any) -> None:
    cache = llmcache.DjangoCache()
    cache.set("key", value)
    assert cache.get("key") is None
    assert not durable.entries().exists()


@pytest.mark.django_db(transaction=True)
def test_it_can_be_made_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "lookup", lambda key: pytest.fail("asked too early"))
    llmcache.DjangoCache()
