"""How long a hot tier that fails may hold somebody up."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis.exceptions import RedisError

KEY = "ab" * 32

OTHER_KEY = "cd" * 32

# A server that does not answer costs 0.1 seconds; 0.25 where another library asks it. This leaves
# room for a busy machine, and none for the seconds that the libraries would wait.
BOUND = 1.5


def seconds_to_fail(work: Callable[[], object]) -> float:
    started = time.monotonic()
    with pytest.raises((RedisError, OSError)):
        work()
    return time.monotonic() - started
