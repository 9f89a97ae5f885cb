"""What the tests of this room share."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache.leases.places import HOT, ROWS, Place
from tests.support.backends import backend_parameters, use_backend


@pytest.fixture(
    params=[
        *backend_parameters(["default", "postgres", "mariadb"], [None]),
        *backend_parameters(["default"], ["redis", "django-redis"]),
    ]
)
def place(request: pytest.FixtureRequest, settings: Any) -> Place:
    chosen = use_backend(request, settings, request.param)
    return ROWS if chosen.cache is None else HOT
