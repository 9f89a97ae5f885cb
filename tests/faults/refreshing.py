"""Processes that serve stale answers, which somebody is to refresh."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any

import llmcache
from tests.support.ticket import Ticket

TTL = 0.05
CALL: dict[str, Any] = {
    "response_model": Ticket,
    "messages": [{"role": "user", "content": "The printer is on fire."}],
    "cache_ttl": TTL,
}


def ask_for(line: Connection, *, seconds: float) -> dict[str, Any]:
    """A task: ask for what is stale, again and again for so many seconds."""
    client = llmcache.from_provider("openai/gpt-4.1-mini")
    client.create(**CALL)
    time.sleep(2 * TTL)
    client.create(**CALL)  # (what is imported at the first refresh takes its time)
    time.sleep(0.5)
    line.send("ready")
    line.recv()
    errors, times, titles = list[str](), list[float](), set[str]()
    with llmcache.capture() as calls:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            started = time.perf_counter()
            try:
                titles.add(client.create(**CALL).title)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                errors.append(repr(error))
            times.append(time.perf_counter() - started)
            time.sleep(0.05)
    return {
        "calls": len(times),
        "errors": errors,
        "stale": sum(call.outcome == "stale" for call in calls),
        "fresh": len(titles) > 1,
        "max": max(times) * 1000,
    }


def tell_again_and_again(line: Connection, *, times: int) -> tuple[str, str]:
    """A task: have a worker refresh one entry, by so many messages."""
    from llmcache.models import CacheEntry
    from llmcache.tasks.on_celery import refresh_entry

    client = llmcache.from_provider("openai/gpt-4.1-mini")
    call = {**CALL, "cache_ttl": 3}
    client.create(**call)
    key = llmcache.key_for(client, **call)
    time.sleep(3.1)
    line.send(key)
    line.recv()
    for _ in range(times):
        refresh_entry.delay(key)
    line.send("told")
    line.recv()
    entry = CacheEntry.objects.using("postgres").get(key=key)
    return key, "fresh" if entry.created_at.timestamp() > time.time() - 60 else "old"
