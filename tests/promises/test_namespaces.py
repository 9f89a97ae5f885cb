"""In which namespace a call is, by whoever names one; and what becomes of a call in none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import copy_context
from enum import StrEnum
from itertools import combinations
from typing import Any

import instructor
import pytest
from asgiref.sync import async_to_sync
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

import llmcache
from llmcache.middleware import NamespaceMiddleware
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, CLOSE, make_client

pytestmark = pytest.mark.django_db(transaction=True)

# Who may name one, the one that wins first.
ORDER = ("call", "override", "request", "client", "setting")
NAMED = [named for count in range(6) for named in combinations(ORDER, count)]


def name_of(request: Any) -> str | None:
    """What `REQUEST_NAMESPACE` points at here: None for a request that says nothing."""
    name: str | None = request.GET.get("namespace")
    return name


def use(settings: Any, **changes: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None} | changes


def in_request(work: Callable[[], Any], namespace: str | None = "request") -> Any:
    """What `work` returns inside of a request with this namespace."""
    seen: list[Any] = []
    answer: Any = NamespaceMiddleware(lambda _: seen.append(work()))
    answer(RequestFactory().get("/", {"namespace": namespace} if namespace else {}))
    return seen[0]


def call_in(named: tuple[str, ...], ask: Callable[[dict[str, Any]], Any]) -> Any:
    """The record of the call that `ask` makes, with `named` as far as it is around a call."""
    own = {"cache_namespace": "call"} if "call" in named else {}

    def work() -> Any:
        with ExitStack() as blocks:
            if "override" in named:
                blocks.enter_context(llmcache.override(namespace="override"))
            calls = blocks.enter_context(llmcache.capture())
            ask(own)
        return calls[-1]

    return in_request(work) if "request" in named else work()


def the_first_of(named: tuple[str, ...]) -> str:
    return next((each for each in ORDER if each in named), "")


@pytest.fixture(autouse=True)
def _request_namespace(settings: Any) -> None:
    use(settings, REQUEST_NAMESPACE=f"{__name__}.name_of")


@pytest.mark.parametrize("named", NAMED, ids="-".join)
def test_the_order_of_a_clients_call(model: StandIn, settings: Any, named: tuple[str, ...]) -> None:
    use(
        settings,
        REQUEST_NAMESPACE=f"{__name__}.name_of",
        NAMESPACE="setting" if "setting" in named else None,
    )
    client = make_client(model, **({"namespace": "client"} if "client" in named else {}))
    call = call_in(named, lambda own: client.create(**CALL, **own))
    assert call.namespace == the_first_of(named)
    assert (str(call.outcome), call.stored) == (("miss", True) if named else ("bypass", False))
    assert [row.namespace for row in durable.entries()] == list(named[:1])


def test_the_order_is_that_of_keys_too(model: StandIn) -> None:
    client = make_client(model, namespace="client")
    with llmcache.override(namespace="override"):
        assert llmcache.key_for(client, **CALL, cache_namespace="client") == llmcache.key_for(
            make_client(model), **CALL, cache_namespace="client"
        )


def test_the_call_wins_with_the_very_name_of_its_client(model: StandIn) -> None:
    client = make_client(model, namespace="support")
    with llmcache.override(namespace="override"), llmcache.capture() as calls:
        client.create(**CALL, cache_namespace="support")
    assert calls[0].namespace == "support"


class Tenant(StrEnum):
    A = "A"


DOORS = ["client", "async client", "stream", "many", "function", "generator", "adapter"]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, model: StandIn) -> Callable[..., Callable[[], Any]]:
    """Each way in: a function that makes one, and returns what asks by it."""

    def make(**made_with: Any) -> Callable[[], Any]:
        client = make_client(model, **made_with)
        match request.param:
            case "client":
                return lambda: client.create(**CALL)
            case "async client":
                aclient = make_client(model, async_client=True, **made_with)
                return lambda: async_to_sync(aclient.create)(**CALL)
            case "stream":
                return lambda: list(client.create_iterable(**CALL))
            case "many":
                return lambda: llmcache.create_many(client, [CALL])[0].unwrap()
            case "function":
                return llmcache.cached(**made_with)(answer)
            case "generator":
                generator = llmcache.cached(**made_with)(answers)
                return lambda: list(generator())
        cache = llmcache.DjangoCache(**made_with)
        plain: Any = instructor.from_provider
        adapted = plain(
            "openai/gpt-4.1-mini",
            cache=cache,
            cache_namespace="any",
            api_key="k",
            base_url=model.url,
            default_headers=CLOSE,
        )
        return lambda: adapted.create(**CALL)

    return make


def answer() -> int:
    return 42


def answers() -> Iterator[int]:
    yield 42


def namespaces() -> list[str]:
    return sorted(row.namespace for row in durable.entries())


def test_a_request_wins_over_what_the_door_was_made_with(door: Callable[..., Any]) -> None:
    ask = door(namespace="support")
    for tenant in ("A", "B", "A"):
        in_request(ask, tenant)
    ask()
    assert namespaces() == ["A", "B", "support"]


def test_nothing_is_stored_for_a_request_without_one(door: Callable[..., Any]) -> None:
    ask = door(namespace="support")
    for _ in range(2):
        in_request(ask, None)
    assert namespaces() == []


def test_nothing_is_stored_where_nobody_names_one(door: Callable[..., Any]) -> None:
    ask = door()
    for _ in range(2):
        ask()
    assert namespaces() == []


def test_where_it_is_required_that_is_an_error(settings: Any, door: Callable[..., Any]) -> None:
    use(settings, REQUIRE_NAMESPACE=True, REQUEST_NAMESPACE=f"{__name__}.name_of")
    ask = door(namespace="support")
    for work in (ask, lambda: in_request(ask, None)):
        with pytest.raises(llmcache.InvalidArgument, match=r"cache_namespace=.*override"):
            work()
    in_request(ask, "A")
    with llmcache.override(namespace="B"):
        ask()
    assert namespaces() == ["A", "B"]


def test_it_is_required_whatever_the_setting_is(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": "default", "REQUIRE_NAMESPACE": True}
    client = make_client(model)
    with pytest.raises(llmcache.InvalidArgument):
        client.create(**CALL)
    with pytest.raises(llmcache.InvalidArgument):
        llmcache.key_for(client, **CALL)
    assert model.calls == []
    client.create(**CALL, cache_namespace="A")
    assert namespaces() == ["A"]


def test_what_is_neither_read_nor_stored_needs_none(model: StandIn, settings: Any) -> None:
    use(settings, REQUIRE_NAMESPACE=True)
    with llmcache.capture() as calls:
        make_client(model).create(**CALL, cache_mode="no-store")
    assert calls[0].outcome == "bypass"


def test_a_wrong_setting_is_no_error_of_the_call(model: StandIn, settings: Any) -> None:
    use(settings, REQUIRE_NAMESPACE="yes")
    with llmcache.capture() as calls:
        make_client(model, namespace="support").create(**CALL)
    assert (str(calls[0].outcome), calls[0].stored) == ("bypass", False)


@pytest.mark.parametrize("name", [SimpleLazyObject(lambda: "A"), Tenant.A], ids=["lazy", "enum"])
def test_a_name_is_what_it_stands_for(model: StandIn, name: Any) -> None:
    client = make_client(model)
    client.create(**CALL, cache_namespace=name)
    with llmcache.override(namespace=name), llmcache.capture() as calls:
        client.create(**CALL)
    assert [(str(call.outcome), call.namespace) for call in calls] == [("hit", "A")]


def test_the_reason_says_the_way_out(model: StandIn) -> None:
    client = make_client(model)
    with llmcache.capture() as calls:
        client.create(**CALL)
    assert "cache_namespace=" in calls[0].reason
    assert "override(namespace=" in calls[0].reason
    assert llmcache.explain(client, **CALL).reason == calls[0].reason
    with pytest.raises(llmcache.UncacheableRequest, match="namespace: the call has none"):
        llmcache.key_for(client, **CALL)
    with pytest.raises(llmcache.CacheMiss, match="the call has none"):
        client.create(**CALL, cache_mode="only-if-cached")


def test_where_requests_have_namespaces_the_default_is_none(model: StandIn, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "REQUEST_NAMESPACE": f"{__name__}.name_of"}
    make_client(model).create(**CALL)
    assert namespaces() == []
    settings.LLMCACHE |= {"NAMESPACE": "default"}
    make_client(model).create(**CALL)
    assert namespaces() == ["default"]


def test_a_decorated_function_is_looked_up_and_removed_where_it_was_stored() -> None:
    function = llmcache.cached(namespace="support")(answer)
    in_request(function, "A")
    assert function.key() != in_request(function.key, "A")
    assert function.invalidate().entries == 0
    assert in_request(lambda: function.explain().outcome, "A") == "hit"
    assert in_request(lambda: function.reload(), "A") == 42
    assert in_request(function.invalidate, "A").entries == 1


def test_a_thread_has_none_unless_it_is_given_one(model: StandIn) -> None:
    client = make_client(model)

    def in_a_thread(work: Callable[..., Any], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        thread.join()

    def ask() -> None:
        client.create(**CALL)

    in_request(lambda: in_a_thread(ask), "A")
    assert namespaces() == []
    in_request(lambda: in_a_thread(copy_context().run, ask), "A")
    assert namespaces() == ["A"]


def test_a_refresh_behind_the_caller_stays_in_the_namespace(model: StandIn) -> None:
    """Also what a function asks in turn, on the thread of the refresh."""
    client = make_client(model, namespace="support")
    asked: list[int] = []

    @llmcache.cached(ttl=0.3, stale_while_revalidate=60, exclude=["asked", "client"])
    def outer() -> str:
        asked.append(1)
        question = [{"role": "user", "content": f"Question {len(asked)}"}]
        title: str = client.create(**CALL | {"messages": question}).title
        return title

    in_request(outer, "A")
    time.sleep(0.5)
    in_request(outer, "A")
    deadline = time.monotonic() + 20
    while durable.entries().count() < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert namespaces() == ["A", "A", "A"]
    assert len(asked) == 2
