"""Asking again for what is stored: which requests their rows bring back, and what is asked then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Literal, cast

import instructor
import openai
import pytest
from instructor.v2.core.multimodal import Image
from pydantic import BaseModel

import llmcache
from llmcache.client import registry
from llmcache.doors.replay import NotRebuildable, ask_again, refresh_entry, request_of
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, CLOSE, make_client
from tests.support.entries import expire
from tests.support.ticket import Ticket
from tests.support.waiting import await_lease

pytestmark = pytest.mark.django_db(transaction=True)


class Contact(BaseModel):
    name: str


@pytest.fixture(autouse=True)
def _only_clients_of_this_test() -> Iterator[None]:
    registry._clients.clear()
    registry._made_of_the_environment.cache_clear()
    yield
    registry._made_of_the_environment.cache_clear()


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


def the_row() -> Any:
    return durable.entries().get()


REBUILDABLE: dict[str, dict[str, Any]] = {
    "a model": {},
    "parameters": {"temperature": 0.5, "seed": 7, "stop": ["x"], "extra_body": {"a": [1, None]}},
    "a context": {"context": {"customer": "Zoë", "ids": [1, 2], "of": {"b": 1.5, "a": None}}},
    "not strict": {"strict": False},
    "another model": {"model": "gpt-4.1"},
    "a namespace": {"cache_namespace": "tenant 7"},
    "list[Model]": {"response_model": list[Ticket]},
    "list[int]": {"response_model": list[int]},
    "int": {"response_model": int},
    "a class in a class": {"response_model": Contact},
    "no response model": {"response_model": None},
    "parts of a message": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "On fire."}]}]
    },
}


@pytest.mark.parametrize("name", REBUILDABLE)
def test_is_rebuilt_and_asked_again(model: StandIn, client: Any, name: str) -> None:
    call = CALL | REBUILDABLE[name]
    client.create(**call)
    before = the_row()
    assert request_of(before).call.key == before.key
    assert len(model.calls) == 1
    assert ask_again(before).stored
    first, second = model.calls
    assert second.body == first.body
    after = the_row()
    assert after.created_at > before.created_at
    same = ("key", "namespace", "provider", "endpoint", "model", "mode", "response_model")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    with llmcache.capture() as calls:
        client.create(**call)
    assert calls[0].outcome == "hit"


@pytest.mark.parametrize("method", ["create_iterable", "create_partial"])
def test_streams_are_read_to_their_end(model: StandIn, client: Any, method: str) -> None:
    list(getattr(client, method)(**CALL))
    before = the_row()
    assert ask_again(before).stored
    assert model.calls[1].body == model.calls[0].body
    assert the_row().response_model == before.response_model
    with llmcache.capture() as calls:
        list(getattr(client, method)(**CALL))
    assert calls[0].outcome == "hit"


def test_tags_time_to_live_and_stale_window_stay(client: Any) -> None:
    client.create(**CALL, cache_tags=["a", "b"], cache_ttl=3600, cache_stale_while_revalidate=600)
    before = the_row()
    ttl = before.expires_at - before.created_at
    for _ in range(3):
        ask_again(the_row())
    after = the_row()
    assert {tag.tag for tag in after.tags.all()} == {"a", "b"}
    # No twentieth of a twentieth: it is left out once.
    assert abs(after.expires_at - after.created_at - ttl) < timedelta(seconds=3)
    assert after.stale_until - after.expires_at == timedelta(seconds=600)


def test_what_never_expires_goes_on_so(client: Any) -> None:
    client.create(**CALL, cache_ttl=None)
    ask_again(the_row())
    assert the_row().expires_at is None


def test_an_override_around_does_not_count(client: Any) -> None:
    client.create(**CALL)
    with llmcache.override(namespace="of the tenant who looks", mode="no-store"):
        assert ask_again(the_row()).stored


def test_an_entry_of_an_asynchronous_client_is_asked_by_a_synchronous_one(
    model: StandIn, client: Any
) -> None:
    from asgiref.sync import async_to_sync

    aclient = make_client(model, async_client=True)
    async_to_sync(aclient.create)(**CALL)
    assert ask_again(the_row()).stored


def test_a_client_around_another_one_is_known_by_its_endpoint(model: StandIn) -> None:
    sdk = openai.OpenAI(api_key="k", base_url=model.url, default_headers=CLOSE)
    client = llmcache.wrap(instructor.from_openai(sdk), model="m", endpoint="the one in the cellar")
    client.create(**CALL)
    assert the_row().endpoint == "the one in the cellar"
    assert ask_again(the_row()).stored


class TestTheClientOfTheEnvironment:
    def test_is_asked_where_this_process_has_made_none(
        self, model: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        make_client(model).create(**CALL)
        registry._clients.clear()
        row = the_row()
        assert ask_again(row).stored
        assert model.calls[1].headers["authorization"] == "Bearer of the environment"
        made = registry._made_of_the_environment(row.provider, row.model, row.mode)
        assert made is not None
        cast(Any, made.client).client.close()

    @pytest.mark.parametrize("key", ["of the environment", None])
    def test_is_not_sent_where_a_row_says(
        self, model: StandIn, monkeypatch: pytest.MonkeyPatch, key: str | None
    ) -> None:
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        make_client(model).create(**CALL)
        registry._clients.clear()
        with pytest.raises(NotRebuildable, match=r"no client of this process asks openai \(base_"):
            ask_again(the_row())
        assert len(model.calls) == 1


def local_model() -> Any:
    class Local(BaseModel):
        title: str

    return Local


def image() -> Image:
    return Image(source="data", media_type="image/png", data="aGVsbG8=")


NOT_REBUILDABLE: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a tuple in the context": (lambda: {"context": {"pair": (1, 2)}}, "back: context$"),
    "a timedelta": (lambda: {"metadata": {"a": timedelta(1)}}, "back: parameters$"),
    "an image": (
        lambda: {"messages": [{"role": "user", "content": ["What is it?", image()]}]},
        "back: messages$",
    ),
    "a class in a function": (
        lambda: {"response_model": local_model()},
        "response model .*Local cannot be found by its name",
    ),
    "a Literal": (
        lambda: {"response_model": Literal["a", "b"]},
        "response model typing.Literal.* cannot be found",
    ),
}


@pytest.mark.parametrize("name", NOT_REBUILDABLE)
def test_is_not_rebuilt_and_says_why(model: StandIn, client: Any, name: str) -> None:
    make, reason = NOT_REBUILDABLE[name]
    call = CALL | make()
    if "metadata" in call:  # (the SDK could not send it: only its row is looked at)
        call = CALL | {"extra_headers": {"a": "b"}}
        client.create(**call)
        described = b'{"messages": [], "parameters": {"b": 1}, "context": null, "strict": true}'
        store_as_request(described)
        reason = "back: messages, parameters$"
    else:
        client.create(**call)
    with pytest.raises(NotRebuildable, match=reason):
        request_of(the_row())
    assert len(model.calls) == 1


def store_as_request(described: bytes) -> None:
    from llmcache.codec.envelope import REQUEST, seal

    row = the_row()
    sealed = seal(REQUEST, row.key, described, created=0.0, expires=None)
    durable.entries().update(request=sealed)


@pytest.mark.parametrize("described", [b"[]", b"{}", b'{"parameters": []}', b"not JSON"])
def test_a_request_of_another_form(client: Any, described: bytes) -> None:
    client.create(**CALL)
    store_as_request(described)
    with pytest.raises(NotRebuildable, match="its stored request"):
        request_of(the_row())


def test_a_request_that_is_not_stored(settings: Any, client: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": "digest"}
    client.create(**CALL)
    with pytest.raises(NotRebuildable, match="not stored"):
        request_of(the_row())


def redact(request: dict[str, Any]) -> dict[str, Any]:
    return request | {"messages": "redacted"}


def test_a_request_that_is_redacted(settings: Any, client: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": f"{__name__}.redact"}
    client.create(**CALL)
    with pytest.raises(NotRebuildable, match=r"back: messages$"):
        request_of(the_row())


def test_a_damaged_request(client: Any) -> None:
    client.create(**CALL)
    durable.entries().update(request=b"x" * 200)
    with pytest.raises(NotRebuildable, match="cannot be read"):
        request_of(the_row())


def test_a_function(client: Any) -> None:
    @llmcache.cached
    def ask() -> Ticket:
        return Ticket(title="x")

    ask()
    with pytest.raises(NotRebuildable, match="no client of this process asks python"):
        request_of(the_row())


class TestRefreshEntry:
    def test_asks_once_however_often_it_is_told(self, model: StandIn, client: Any) -> None:
        client.create(**CALL)
        key = the_row().key
        expire()
        for word in ("refreshed", "fresh", "fresh"):
            assert refresh_entry(key) == word
            await_lease()
        assert len(model.calls) == 2

    def test_asks_once_however_many_are_told_at_once(self, model: StandIn, client: Any) -> None:
        client.create(**CALL)
        key = the_row().key
        expire()
        model.latency = 1
        words: list[str] = []
        threads = [
            threading.Thread(target=lambda: words.append(refresh_entry(key))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert words.count("refreshed") == 1
        assert set(words) <= {"refreshed", "being refreshed", "fresh"}
        assert len(model.calls) == 2

    def test_leaves_alone_what_is_fresh_or_gone(self, model: StandIn, client: Any) -> None:
        client.create(**CALL)
        await_lease()
        key = the_row().key
        assert refresh_entry(key) == "fresh"
        expire()
        llmcache.invalidate(keys=[key])
        assert refresh_entry(key) == "gone"
        assert len(model.calls) == 1
        client.create(**CALL)  # nobody holds a lease any more
        assert len(model.calls) == 2

    def test_says_why_it_cannot(
        self, model: StandIn, client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.create(**CALL, context={"pair": (1, 2)})
        key = the_row().key
        expire()
        assert refresh_entry(key) == "not rebuildable"
        assert f"{key} cannot be refreshed: what is stored of the request" in caplog.text
        await_lease()
        assert refresh_entry(key) == "not rebuildable"

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_failing_provider_is_logged(
        self, model: StandIn, client: Any, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        client = make_client(model, max_retries=0)
        client.create(**CALL)
        key = the_row().key
        expire()
        model.fail_with = status
        assert refresh_entry(key) == "the provider failed"
        assert "was not refreshed" in caplog.text
        model.fail_with = None
        await_lease()
        assert refresh_entry(key) == "refreshed"

    def test_an_error_of_the_callers_making_is_raised(self, model: StandIn, client: Any) -> None:
        client.create(**CALL)
        key = the_row().key
        expire()
        model.fail_with = 400
        with pytest.raises(Exception, match="400"):
            refresh_entry(key)

    def test_what_is_not_admitted_is_logged(
        self, model: StandIn, client: Any, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.create(**CALL)
        before = the_row()
        expire()
        settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.admit_nothing"}
        assert refresh_entry(before.key) == "not stored"
        assert the_row().created_at == before.created_at
        assert "was not refreshed" in caplog.text

    def test_is_not_brought_back_by_it_once_invalidated(self, model: StandIn, client: Any) -> None:
        client.create(**CALL)
        key = the_row().key
        expire()
        model.latency = 1
        thread = threading.Thread(target=refresh_entry, args=[key])
        thread.start()
        while len(model.calls) < 2:
            thread.join(0.01)
        llmcache.invalidate(keys=[key])
        thread.join()
        assert not durable.entries().exists()


def admit_nothing(answer: Any, completion: Any) -> bool:
    return False
