"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.backends import OWN, parameters
from tests.support.servers import RedisServer, require


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _all_is_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds a server that runs, and leaves one."""
    yield
    if "redis" in request.fixturenames:
        server = request.getfixturevalue("redis")
        server.resume()
        server.start()


@pytest.fixture
def use(settings: Any, redis: RedisServer) -> Callable[..., None]:
    """Make the alias ``hot`` of these parameters the hot tier."""

    def use_alias(
        backend_path: str = OWN, options: dict[str, Any] | None = None, **more: Any
    ) -> None:
        params = parameters(backend_path, redis.url, **(options or {}))
        settings.CACHES = {**settings.CACHES, "hot": params | more}
        settings.LLMCACHE = {"CACHE": "hot"}

    return use_alias
