"""Answers that are stale."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from llmcache.models import Lease
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL
from tests.support.waiting import wait_until

OLD, NEW = {"title": "old", "priority": 1}, {"title": "new", "priority": 2}

REVALIDATE: dict[str, Any] = {"cache_ttl": 60, "cache_stale_while_revalidate": 60}

TTL = 0.3  # seconds, of what is to be stale

served_from_rows = pytest.mark.django_db(transaction=True)


def store_and_let_expire(model: StandIn, create: Callable[..., Any], **windows: Any) -> None:
    """An old answer in the store, expired; the model has a new one."""
    model.behaviour.answer_with = OLD
    create(**CALL | windows, cache_ttl=TTL)
    await_expiry(model)


async def astore_and_let_expire(model: StandIn, client: Any, **windows: Any) -> None:
    model.behaviour.answer_with = OLD
    await client.create(**CALL, **windows, cache_ttl=TTL)
    await asyncio.to_thread(await_expiry, model)


def await_expiry(model: StandIn) -> None:
    wait_until(lambda: not Lease.objects.using(alias()).exclude(token="").exists())
    time.sleep(TTL + 0.2)
    model.behaviour.answer_with = NEW


def alias() -> str:
    return durable.entries().db


def seen(call: Any) -> tuple[str, str | None, bool]:
    return str(call.outcome), call.tier and str(call.tier), call.stored


_told: list[str] = []
