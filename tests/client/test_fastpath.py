"""What instructor looks for in a response model, it looks for once; and it finds it each time."""

from __future__ import annotations

import inspect
from asyncio import sleep
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from instructor import Instructor
from instructor.core.hooks import Hooks
from instructor.v2.validation import async_validators
from instructor.v2.validation.async_validators import async_field_validator
from pydantic import BaseModel

import llmcache
from project.standin.server import StandIn
from tests.support.clients import CALL, MESSAGES, make_client, make_plain_client
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


class Lazy(BaseModel):
    subject: str

    @async_field_validator("subject")
    async def look_it_up(self, subject: str) -> str:
        return subject


class Holder(BaseModel):
    lazy: list[Lazy]


@pytest.fixture
def as_read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The response models that instructor looks through before it calls the client."""
    seen: list[Any] = []
    look = async_validators.reject_async_validators

    def look_and_tell(response_model: Any) -> None:
        seen.append(response_model)
        look(response_model)

    monkeypatch.setattr(async_validators, "reject_async_validators", look_and_tell)
    return seen


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_class_is_looked_through_once(model: StandIn, as_read: list[Any], is_async: bool) -> None:
    class Once(Ticket):
        pass

    own = make_client(model, async_client=is_async).create
    ask = async_to_sync(own) if is_async else own
    ask(response_model=Once, messages=MESSAGES)
    assert Once in as_read
    as_read.clear()
    for _ in range(2):
        ask(response_model=Once, messages=MESSAGES)
    assert not as_read
    assert len(model.calls) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("response_model", [Lazy, Holder])
def test_asynchronous_validators_are_refused_each_time(
    model: StandIn, response_model: type[BaseModel], is_async: bool
) -> None:
    client = make_client(model, async_client=is_async)
    create = async_to_sync(client.create) if is_async else client.create
    llmcache.key_for(client, response_model=response_model, messages=MESSAGES)
    for _ in range(2):
        with pytest.raises(ValueError, match="async validators are not supported"):
            create(response_model=response_model, messages=MESSAGES)
    assert not model.calls


def test_a_class_that_was_rebuilt_is_looked_through_again(
    model: StandIn, as_read: list[Any]
) -> None:
    class Rebuilt(Ticket):
        pass

    client = make_client(model)
    client.create(response_model=Rebuilt, messages=MESSAGES)
    Rebuilt.model_rebuild(force=True)
    as_read.clear()
    for _ in range(2):
        client.create(response_model=Rebuilt, messages=MESSAGES)
    assert as_read.count(Rebuilt) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_method_is_as_it_was(model: StandIn, is_async: bool) -> None:
    client = make_client(model, async_client=is_async)
    own = type(client).create
    assert inspect.iscoroutinefunction(client.create) == is_async
    assert [*inspect.signature(client.create).parameters] == [*inspect.signature(own).parameters][
        1:
    ]
    assert client.create.__doc__ == own.__doc__


HOOKS = Hooks()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("defaults", [{}, {"temperature": 0.5, "model": "other"}])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_retries": 1, "context": {"a": 1}, "strict": False},
        {"temperature": 0.1, "cache_ttl": None},
        {"hooks": HOOKS},
        {"hooks": None, "token_budget": None},
        {"token_budget": 100},
    ],
)
def test_the_client_is_called_as_instructor_calls_it(
    model: StandIn, arguments: dict[str, Any], defaults: dict[str, Any], is_async: bool
) -> None:
    """By its own `create`, and by ours, which is used once the class is known."""
    client = make_client(model, async_client=is_async)
    client.kwargs = defaults
    client.on("parse:error", print)
    seen: list[dict[str, Any]] = []

    def note(**call: Any) -> Any:
        seen.append(call | {"hooks": call["hooks"]._handlers})
        return sleep(0) if is_async else None

    client.create_fn = note
    llmcache.key_for(make_client(model), **CALL)  # the class is known
    for create in (client.create, partial(type(client).create, client)):
        (async_to_sync(create) if is_async else create)(**CALL, **arguments)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("arguments", [{"response_model": Ticket}, {"messages": MESSAGES}])
def test_what_is_missing_is_an_error(model: StandIn, arguments: dict[str, Any]) -> None:
    client = make_client(model)
    llmcache.key_for(client, **CALL)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        client.create(**arguments)


def test_a_default_that_instructor_would_refuse_is_refused(model: StandIn) -> None:
    client = make_client(model)
    llmcache.key_for(client, **CALL)
    client.kwargs = {"strict": False}
    with pytest.raises(TypeError, match="multiple values"):
        client.create(**CALL)


def test_a_response_model_may_be_given_by_its_place(model: StandIn) -> None:
    client = make_client(model)
    for _ in range(2):
        assert isinstance(client.create(Ticket, MESSAGES), Ticket)
    assert len(model.calls) == 1


def test_a_client_of_a_projects_own_is_handed_the_class_itself(model: StandIn) -> None:
    seen: list[Any] = []

    class Own(Instructor):
        def create(self, response_model: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(response_model)
            return super().create(response_model, *args, **kwargs)

    plain = make_plain_client(model, model="gpt-4.1-mini")
    own = Own(plain.client, plain.create_fn, plain.mode, plain.provider)
    client = llmcache.wrap(own, model="gpt-4.1-mini")
    for _ in range(2):
        client.create(**CALL)
    assert seen == [Ticket, Ticket]
    assert len(model.calls) == 1
