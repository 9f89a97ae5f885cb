"""A Redis that can be stopped, behind each of the backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import RedisServer, require


@pytest.fixture(params=["redis", "django-redis", "django"])
def redis(
    request: pytest.FixtureRequest, settings: Any, transactional_db: None, _closed: None
) -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        fragile = settings.CACHES[request.param] | {"LOCATION": server.url}
        settings.CACHES = settings.CACHES | {"fragile": fragile}
        settings.LLMCACHE = {"CACHE": "fragile"}
        yield server
