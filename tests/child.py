"""Processes of their own that call the model through llmcache, on the databases of the test.

They are forked from a server process that has imported the libraries, and nothing of Django's
state: that takes a tenth of the time of starting Python anew, and they share as little.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import openai.resources.chat  # noqa: F401 - imported once, in the server process

import llmcache.client
from tests.shapes import Row, ask, make_client
from tests.ticket import Ticket

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.child"])


def start(order: dict[str, Any]) -> Connection:
    """Start a process that calls the model as `order` says; `receive` its outcomes."""
    return _start(call_the_model, **order)


def _start(task: Callable[..., list[Any]], **order: Any) -> Connection:
    environment = {**os.environ, "LLMCACHE_TEST_CHILD": "1"}
    receiver, sender = processes.Pipe(duplex=False)
    arguments = (task, order, environment, sender)
    processes.Process(target=work, args=arguments, daemon=True).start()
    sender.close()
    return receiver


def start_rows(rows: list[Row], llmcache_settings: dict[str, Any], root: str) -> Connection:
    """Start a process that asks each row of the conformance table; `receive` the outcomes."""
    return _start(ask_rows, rows=rows, llmcache_settings=llmcache_settings, root=root)


def receive(receiver: Connection) -> list[Any]:
    """What the process has seen, when it has ended."""
    with receiver:
        result = receiver.recv()
    assert isinstance(result, list), result
    return result


def work(
    task: Callable[..., list[Any]],
    order: dict[str, Any],
    environment: dict[str, str],
    sender: Connection,
) -> None:
    try:
        os.environ.update(environment, DJANGO_SETTINGS_MODULE="tests.settings")
        sender.send(task(**order))
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
    set_up(llmcache_settings)
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


def ask_rows(*, rows: list[Row], llmcache_settings: dict[str, Any], root: str) -> list[str]:
    set_up(llmcache_settings)
    with llmcache.capture() as calls, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            ask(row, make_client(row, root))
    return [str(call.outcome) for call in calls]


def set_up(llmcache_settings: dict[str, Any]) -> None:
    import django

    django.setup()
    from django.conf import settings

    settings.LLMCACHE = llmcache_settings


async def _finish(answer: Any) -> None:
    await answer
