"""Waiting for what comes to be behind the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from llmcache.models import Lease


def wait_until(condition: Callable[[], object], seconds: float = 45) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


async def cancel_after(turns: int, task: asyncio.Task[Any]) -> None:
    """So many turns of the loop later it has heard of it, and may not have gone on yet."""
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task


def await_lease() -> None:
    """Until whoever has asked has given the lease back, which nobody waits for otherwise."""
    deadline = time.monotonic() + 45
    while Lease.objects.exclude(token="").exists():
        assert time.monotonic() < deadline, "nobody gave the lease back"
        time.sleep(0.01)
