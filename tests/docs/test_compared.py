"""What docs/explanation/compared.md and README.md say of instructor's own cache is so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import instructor
import pytest
from instructor.cache import AutoCache, BaseCache

from project.standin.server import StandIn
from tests.support.ticket import Ticket

CALL: dict[str, Any] = {"messages": [{"role": "user", "content": "The printer is on fire."}]}
MANY = 8


class Spy(BaseCache):
    """Fails at what it is told to, and notes on which threads it is asked."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.threads: set[int] = set()

    def get(self, key: str) -> None:
        self.threads.add(threading.get_ident())
        if self.fails_at == "get":
            raise ConnectionError

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        if self.fails_at == "set":
            raise ConnectionError


@pytest.fixture
def make(model: StandIn) -> Callable[..., Any]:
    def make_client(cache: BaseCache, **arguments: Any) -> Any:
        headers = {"Connection": "close"}
        arguments = {"base_url": model.url, "api_key": "k", "default_headers": headers} | arguments
        return instructor.from_provider("openai/gpt-4.1-mini", cache=cache, **arguments)

    return make_client


@pytest.mark.parametrize(
    ("one", "other", "calls"),
    [
        ({}, {}, 2),
        ({"cache_namespace": "n"}, {"cache_namespace": "n"}, 1),
        ({"cache_namespace": "n"}, {"cache_namespace": "n", "api_key": "rotated"}, 2),
    ],
    ids=["no namespace", "one namespace", "a rotated key"],
)
def test_clients_share_by_namespace(
    make: Any, model: StandIn, one: Any, other: Any, calls: int
) -> None:
    cache = AutoCache()
    for arguments in (one, other):
        make(cache, **arguments).create(response_model=Ticket, **CALL)
    assert len(model.calls) == calls


@pytest.mark.parametrize("name", ["timeout", "extra_headers"])
def test_what_cannot_change_the_answer_counts(make: Any, model: StandIn, name: str) -> None:
    values: dict[str, list[Any]] = {
        "timeout": [10, 20],
        "extra_headers": [{"X-Request-ID": "a"}, {"X-Request-ID": "b"}],
    }
    client = make(AutoCache())
    for value in values[name]:
        client.create(response_model=Ticket, **CALL, **{name: value})
    assert len(model.calls) == 2


@pytest.mark.parametrize("fails_at", ["get", "set"])
def test_a_cache_that_fails_fails_the_call(make: Any, fails_at: str) -> None:
    with pytest.raises(ConnectionError):
        make(Spy(fails_at)).create(response_model=Ticket, **CALL)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.create(response_model=list[Ticket], **CALL),
        lambda client: client.create(response_model=int, **CALL),
        lambda client: list(client.create_iterable(response_model=Ticket, **CALL)),
        lambda client: list(client.create_partial(response_model=Ticket, **CALL)),
    ],
    ids=["list", "plain type", "iterable", "partial"],
)
def test_what_is_never_stored(make: Any, model: StandIn, ask: Any) -> None:
    client = make(AutoCache())
    for _ in range(2):
        ask(client)
    assert len(model.calls) == 2


class Meeting(AutoCache):
    """All have looked before the first one asks."""

    def __init__(self) -> None:
        super().__init__()
        self.all_have_looked = threading.Barrier(MANY)

    def get(self, key: str) -> Any:
        found = super().get(key)
        self.all_have_looked.wait(60)
        return found


def test_each_of_many_asks(make: Any, model: StandIn) -> None:
    client = make(Meeting())
    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(lambda _: client.create(response_model=Ticket, **CALL), range(MANY)))
    assert len(model.calls) == MANY


def test_an_asynchronous_client_asks_its_cache_on_the_event_loop(make: Any) -> None:
    spy = Spy()
    asyncio.run(make(spy, async_client=True).create(response_model=Ticket, **CALL))
    assert spy.threads == {threading.get_ident()}
