"""Whose credentials a question is sent with when it is asked again: those of its own namespace."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import instructor
import openai
import pytest
from django.test import Client, RequestFactory

import llmcache
from llmcache.client import registry
from llmcache.doors.replay import NotRebuildable, ask_again, propose, refresh_entry
from llmcache.middleware import NamespaceMiddleware
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.admin import page_of
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.entries import expire
from tests.support.waiting import await_lease

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    registry._clients.clear()
    registry._made_of_the_environment.cache_clear()
    yield
    registry._made_of_the_environment.cache_clear()


@pytest.fixture
def environment(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")


def client_of(model: StandIn, tenant: str, **kwargs: Any) -> Any:
    return make_client(model, namespace=tenant, api_key=f"key of {tenant}", **kwargs)


def sent(model: StandIn) -> list[str]:
    """The credentials that came, without the first that stored the entry."""
    return [call.headers["authorization"].removeprefix("Bearer ") for call in model.calls[1:]]


def the_row() -> Any:
    return durable.entries().get()


def by_a_refresh() -> None:
    row = the_row()
    expire()
    if refresh_entry(row.key) == "not rebuildable":
        raise NotRebuildable("see the log")


AGAIN = pytest.mark.parametrize(
    "again",
    [by_a_refresh, lambda: propose(the_row()), lambda: ask_again(the_row())],
    ids=["refresh_entry", "propose", "ask_again"],
)
Again = Callable[[], object]


@AGAIN
def test_the_client_of_the_namespace_asks(model: StandIn, again: Again) -> None:
    others = [client_of(model, tenant) for tenant in ("B", "C")]
    own = client_of(model, "A")
    own.create(**CALL)
    again()
    assert sent(model) == ["key of A"]
    assert len(others) == 2


@AGAIN
@pytest.mark.parametrize("lazy", [False, True], ids=["used", "lazy"])
def test_without_one_it_is_refused(model: StandIn, again: Again, lazy: bool) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    other = client_of(model, "B", lazy=lazy)
    if not lazy:
        other.create(**CALL | {"messages": [{"role": "user", "content": "Of B."}]}, cache_ttl=0)
    before = len(model.calls)
    with pytest.raises(NotRebuildable):
        again()
    assert len(model.calls) == before


def test_the_refusal_says_the_way_out(model: StandIn) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    client_of(model, "B")
    with pytest.raises(NotRebuildable, match=r"for the namespace 'A'; make one .* environment"):
        ask_again(the_row())


@AGAIN
def test_the_environment_asks_for_all(model: StandIn, environment: None, again: Again) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    other = client_of(model, "B")
    again()
    assert sent(model) == ["of the environment"]
    assert other


@AGAIN
def test_a_client_made_of_the_environment_asks_for_all(
    model: StandIn, monkeypatch: pytest.MonkeyPatch, again: Again
) -> None:
    """Also one that is sent elsewhere than the environment says."""
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")
    client_of(model, "A").create(**CALL)
    gc.collect()
    shared: Any = llmcache.from_provider("openai/gpt-4.1-mini", base_url=model.url, timeout=30)
    again()
    assert sent(model) == ["of the environment"]
    assert shared


@pytest.mark.parametrize(
    "made_with",
    [
        {"api_key": "a key"},
        {"default_headers": CLOSE | {"X-Key": "a key"}},
        {"organization": "an account"},
    ],
    ids=lambda made_with: next(iter(made_with)),
)
def test_a_client_with_credentials_of_its_own_does_not(
    model: StandIn, monkeypatch: pytest.MonkeyPatch, made_with: dict[str, Any]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    client_of(model, "A").create(**CALL)
    gc.collect()
    nobodys: Any = llmcache.from_provider("openai/gpt-4.1-mini", base_url=model.url, **made_with)
    sdk = openai.OpenAI(api_key="a key", base_url=model.url, default_headers=CLOSE)
    wrapped: Any = llmcache.wrap(instructor.from_openai(sdk))
    with pytest.raises(NotRebuildable):
        ask_again(the_row())
    assert len(model.calls) == 1
    assert nobodys
    assert wrapped


@AGAIN
def test_one_client_for_all_tenants_asks_where_it_has_asked(model: StandIn, again: Again) -> None:
    """The project itself has sent questions of A with these credentials."""
    shared = make_client(model, api_key="of the site")
    shared.create(**CALL, cache_namespace="A")
    again()
    assert sent(model) == ["of the site"]


def test_one_client_for_all_tenants_is_not_asked_for_another_one(model: StandIn) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    of_a_request_of_b = make_client(model, api_key="brought by B")
    of_a_request_of_b.create(**CALL, cache_namespace="B")
    with pytest.raises(NotRebuildable):
        ask_again(durable.entries().get(namespace="A"))


def test_a_client_that_was_made_for_another_namespace_is_not_asked_for_its_calls_in_this(
    model: StandIn,
) -> None:
    other = client_of(model, "B")
    other.create(**CALL, cache_namespace="A")
    with pytest.raises(NotRebuildable):
        ask_again(the_row())
    assert sent(model) == []


def test_to_look_at_a_call_is_not_to_make_one(model: StandIn) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    shared = make_client(model, api_key="of the site")
    assert llmcache.key_for(shared, **CALL, cache_namespace="A") == the_row().key
    assert llmcache.explain(shared, **CALL, cache_namespace="A").outcome == "hit"
    with pytest.raises(NotRebuildable):
        ask_again(the_row())
    assert sent(model) == []


def test_a_client_without_a_namespace_is_of_that_of_the_settings(
    model: StandIn, settings: Any
) -> None:
    make_client(model, api_key="of the site").create(**CALL)
    gc.collect()
    again = make_client(model, api_key="of the site")
    assert ask_again(the_row()).stored
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None}
    registry._clients.clear()
    again = make_client(model, api_key="of whom")
    with pytest.raises(NotRebuildable):
        ask_again(the_row())
    assert sent(model) == ["of the site"]
    assert again


def test_looking_an_entry_up_to_ask_again_makes_no_client_its_own(model: StandIn) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    other = client_of(model, "B")
    for _ in range(2):
        with pytest.raises(NotRebuildable):
            ask_again(the_row())
    assert "A" not in other.create_fn.origin.namespaces


def tenant_of(request: Any) -> str:
    return "B"


def test_a_request_of_another_tenant_changes_neither_namespace_nor_credentials(
    model: StandIn, settings: Any
) -> None:
    settings.LLMCACHE = {
        "CACHE": None,
        "NAMESPACE": None,
        "REQUIRE_NAMESPACE": True,
        "REQUEST_NAMESPACE": f"{__name__}.tenant_of",
    }
    own, other = client_of(model, "A"), client_of(model, "B")
    own.create(**CALL, cache_namespace="A")
    await_lease()
    stored: list[bool] = []
    view: Any = NamespaceMiddleware(lambda _: stored.append(ask_again(the_row()).stored))
    view(RequestFactory().get("/"))
    assert stored == [True]
    assert the_row().namespace == "A"
    assert sent(model) == ["key of A"]
    assert other


def test_the_admin_refuses_as_well(model: StandIn, admin_client: Client) -> None:
    client_of(model, "A").create(**CALL)
    gc.collect()
    other = client_of(model, "B")
    response = admin_client.post(page_of(the_row(), "ask_again"), follow=True)
    assert "cannot be asked again" in response.content.decode()
    assert len(model.calls) == 1
    assert other
