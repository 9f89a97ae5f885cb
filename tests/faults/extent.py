"""How much is done: little in CI, and a lot when `make faults` measures."""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

LONG: Final = os.environ.get("LLMCACHE_LONG", "") not in ("", "0")


def extent(short: T, long: T) -> T:
    """One of the two, as the environment variable ``LLMCACHE_LONG`` says."""
    return long if LONG else short
