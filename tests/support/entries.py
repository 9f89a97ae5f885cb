"""Entries to store, and what is found of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import OperationalError, transaction
from django.utils import timezone

from llmcache import store
from llmcache.background import transactions
from llmcache.codec.envelope import ANSWER, seal
from llmcache.outcomes import Tier
from llmcache.store.records import Draft, Found, Missing
from llmcache.store.rows import tier as durable
from tests.support.waiting import await_lease

KEY = "ab" * 32

OTHER_KEY = "cd" * 32


def draft(key: str = KEY, body: bytes = b"answer", ttl: float | None = 60, **columns: Any) -> Draft:
    now = time.time()
    expires = None if ttl is None else now + ttl
    payload = seal(ANSWER, key, body, created=now, expires=expires)
    defaults: dict[str, Any] = {"namespace": "tests", "created": now, "expires": expires}
    return Draft(key=key, payload=payload, **(defaults | columns))


def damaged(data: Any) -> bytes:
    """The bytes of a column with another last byte, whatever that was."""
    whole = bytes(data)
    return whole[:-1] + bytes([whole[-1] ^ 1])


def body_of(found: Found | Missing) -> bytes | None:
    return found.body if isinstance(found, Found) else None


def tier_of(found: Found | Missing) -> Tier | None:
    return found.tier if isinstance(found, Found) else None


def in_deadlocks(number: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` that meets so many deadlocks, as MariaDB reports them, after it is done."""
    left = [OperationalError(1213, "Deadlock found when trying to get lock")] * number

    def meet(*args: Any, **kwargs: Any) -> Any:
        with transaction.atomic(using=transactions.database_alias()):
            done = work(*args, **kwargs)
            if left:
                raise left.pop()
        return done

    return meet


def expire() -> None:
    await_lease()
    past = timezone.now() - timedelta(seconds=30)
    durable.entries().update(expires_at=past, stale_until=past + timedelta(hours=1))


def look_up(is_async: bool = False) -> Any:
    return asyncio.run(store.alookup(KEY)) if is_async else store.lookup(KEY)
