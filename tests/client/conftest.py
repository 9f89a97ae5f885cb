"""What the tests of this room share."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from project.standin.server import StandIn
from tests.support.clients import (
    make_client,
)


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


@pytest.fixture(params=["sync", "async"])
def create(request: pytest.FixtureRequest, model: StandIn) -> Any:
    """`client.create` of a synchronous client, and of an asynchronous one run to its end."""
    if request.param == "sync":
        return make_client(model).create
    return async_to_sync(make_client(model, async_client=True).create)
