"""What the tests of this room share."""

from __future__ import annotations

from typing import Any

import pytest

from project.standin.server import StandIn
from tests.support.explanation import make_client


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)
