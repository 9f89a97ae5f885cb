"""A process that knows an epoch, and has connections open, when others remove what it served."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import llmcache
from tests.faults.model import Model, call_for

QUESTIONS = [f"Who knows {number}?" for number in range(6)]
PATIENCE_SECONDS = 20.0


def obey(line: Connection, *, forked: bool = False) -> None:
    """A task: do what the line says, by the names below, and say the result.

    `forked`: a fork does that, of a process that had served hits, and has said so.
    """
    if forked:
        line.send(warm())
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            raise ChildProcessError(f"the fork ended with {os.waitstatus_to_exitcode(status)}")
    with suppress(EOFError):  # who gave the orders has ended
        while True:
            name, *arguments = line.recv()
            line.send(ORDERS[name](*arguments))


def warm() -> bool:
    """Have all questions answered from hot copies, by a thread and on a loop."""
    client, ends = Model().client(), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        for question in QUESTIONS:
            client.create(**call_for(question))
        if set(look()) == {"hot"}:
            return True
        time.sleep(0.05)
    return False


def look() -> list[str | None]:
    """The tiers that the questions are answered from, by a thread and on a loop; None: by none."""
    with llmcache.override(mode="only-if-cached"), llmcache.capture() as calls:
        client = Model().client()
        for question in QUESTIONS:
            try:
                client.create(**call_for(question))
            except llmcache.CacheMiss:
                continue
        asyncio.run(_look())
    return [str(call.tier) if call.tier else None for call in calls]


async def _look() -> None:
    client = Model().client(is_async=True)
    for _ in range(2):  # (the first brings no line to the loop)
        for question in QUESTIONS:
            try:
                await client.create(**call_for(question))
            except llmcache.CacheMiss:
                continue


def invalidate(by: str) -> tuple[int, tuple[str, ...]]:
    """Remove the answers to the questions; how many, and what is pending."""
    client = Model().client()
    criteria: dict[str, Any] = {
        "keys": {"keys": [llmcache.key_for(client, **call_for(each)) for each in QUESTIONS]},
        "everything": {"everything": True},
    }
    result = llmcache.invalidate(**criteria[by])
    return result.entries, tuple(map(str, result.pending))


def delete(by: str) -> int:
    """Remove the rows past llmcache."""
    from django.conf import settings
    from django.core.management import call_command

    from llmcache.models import CacheEntry

    database = settings.LLMCACHE["DATABASE"]
    if by == "flush":
        call_command("flush", interactive=False, verbosity=0, database=database)
        return 0
    return int(CacheEntry.objects.using(database).all().delete()[0])


ORDERS: dict[str, Callable[..., Any]] = {
    "warm": warm,
    "look": look,
    "invalidate": invalidate,
    "delete": delete,
}
