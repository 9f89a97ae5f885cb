"""Processes of their own that call the model through llmcache, on the databases of the test.

They are forked from a server process that has imported the libraries, and nothing of Django's
state: that takes a tenth of the time of starting Python anew, and they share as little.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

import openai.resources.chat  # noqa: F401 - imported once, in the server process

import llmcache.client
from tests.ticket import Ticket

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.child"])


def start(order: dict[str, Any]) -> Connection:
    """Start a process that calls the model as `order` says; `receive` its outcomes."""
    os.environ["LLMCACHE_TEST_CHILD"] = "1"
    receiver, sender = processes.Pipe(duplex=False)
    processes.Process(target=work, args=(order, dict(os.environ), sender), daemon=True).start()
    sender.close()
    del os.environ["LLMCACHE_TEST_CHILD"]
    return receiver


def receive(receiver: Connection) -> list[tuple[str, str | None, str]]:
    """Outcome, tier and reason of each call, when the process has ended."""
    with receiver:
        result = receiver.recv()
    assert isinstance(result, list), result
    return result


def work(order: dict[str, Any], environment: dict[str, str], sender: Connection) -> None:
    try:
        os.environ.update(environment, DJANGO_SETTINGS_MODULE="tests.settings")
        sender.send(call_the_model(**order))
    except BaseException:
        sender.send(traceback.format_exc())
        raise


def call_the_model(
    *,
    llmcache_settings: dict[str, Any],
    base_url: str,
    api_key: str = "k",
    is_async: bool = False,
    times: int = 2,
) -> list[tuple[str, str | None, str]]:
    import django

    django.setup()
    from django.conf import settings

    settings.LLMCACHE = llmcache_settings
    client: Any = llmcache.client.from_provider(
        "openai/gpt-4.1-mini", api_key=api_key, base_url=base_url, async_client=is_async
    )
    call = {
        "response_model": Ticket,
        "messages": [{"role": "user", "content": "The printer is on fire."}],
    }
    with llmcache.capture() as calls:
        for _ in range(times):
            answer = client.create(**call)
            if is_async:
                asyncio.run(_finish(answer))
    return [(str(call.outcome), call.tier and str(call.tier), call.reason) for call in calls]


async def _finish(answer: Any) -> None:
    await answer
