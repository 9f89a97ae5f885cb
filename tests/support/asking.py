"""Many who ask the same at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import connections

import llmcache
from tests.support.clients import CALL

KEY, OTHER_KEY = "ab" * 32, "cd" * 32

LEASE_SECONDS = 10  # by default


def ask_in_threads(client: Any, number: int, **arguments: Any) -> list[Future[Any]]:
    """So many calls at once, of which the last has begun; to be waited for."""
    begun = threading.Semaphore(0)

    def ask() -> Any:
        begun.release()
        with llmcache.capture() as calls:
            client.create(**CALL, **arguments)
        connections.close_all()
        return calls[0]

    pool = ThreadPoolExecutor(number)
    futures = [pool.submit(ask) for _ in range(number)]
    for _ in futures:
        assert begun.acquire(timeout=10)
    pool.shutdown(wait=False)
    return futures


def outcomes(futures: list[Future[Any]]) -> list[str]:
    return sorted(str(future.result(30).outcome) for future in futures)
