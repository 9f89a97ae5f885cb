"""The twin of an alias, and what it has of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import RedisError

from llmcache.store.hot import tier as hot

KEY = "ab" * 32

OTHER_KEY = "cd" * 32

# A server that does not answer costs 0.1 seconds. This leaves room for a busy machine, and none
# for the seconds that the libraries would wait.
BOUND = 1.0


def pools() -> list[Any]:
    """The pools of connections that the hot tier has opened."""
    found: list[Any] = getattr(hot.backend(), "llmcache_pools")  # noqa: B009
    return found


def seconds_to_fail(work: Callable[[], object]) -> float:
    started = time.monotonic()
    with pytest.raises((RedisError, OSError)):
        work()
    return time.monotonic() - started
