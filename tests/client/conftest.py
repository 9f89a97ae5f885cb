"""What the tests of this room share."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from instructor import Mode

import llmcache
from llmcache.client.many.batch import Result
from project.standin.server import StandIn
from tests.support.clients import (
    Scripted,
    make_client,
)
from tests.support.many import AsyncScripted, Many
from tests.support.streams import MODES, Asking, make_asking


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


@pytest.fixture(params=["sync", "async"])
def create(request: pytest.FixtureRequest, model: StandIn) -> Any:
    """`client.create` of a synchronous client, and of an asynchronous one run to its end."""
    if request.param == "sync":
        return make_client(model).create
    return async_to_sync(make_client(model, async_client=True).create)


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture(params=MODES, ids=lambda pair: f"{pair[0]}-{pair[1].value}")
def asking(request: pytest.FixtureRequest, model: StandIn, is_async: bool) -> Asking:
    """A client in each of the modes."""
    provider, mode = request.param
    return make_asking(model, provider, mode, is_async)


@pytest.fixture
def openai_asking(model: StandIn, is_async: bool) -> Asking:
    """A client in one mode, for what does not depend on it."""
    return make_asking(model, "openai", Mode.TOOLS, is_async)


@pytest.fixture(params=["sync", "async"])
def scripted(request: pytest.FixtureRequest) -> Any:
    """Makes a scripted model, and `create_many` with a client that asks it."""

    def make(**script: Any) -> tuple[Scripted, Many]:
        if request.param == "sync":
            model = Scripted(**script)
            client = model.client()
            return model, lambda *given, **options: llmcache.create_many(client, *given, **options)
        amodel = AsyncScripted(**script)
        aclient = amodel.client()

        async def run(*given: Any, **options: Any) -> list[Result]:
            return await llmcache.acreate_many(aclient, *given, **options)

        return amodel, async_to_sync(run)

    return make
