"""Processes of their own that call the model through llmcache, on the databases of the test.

They are forked from a server process that has imported the libraries, and nothing of Django's
state: that takes a tenth of the time of starting Python anew, and they share as little.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import openai.resources.chat  # noqa: F401 - imported once, in the server process

import llmcache.client
from llmcache.outcomes import Call
from tests.support.shapes import Row, ask, make_client
from tests.support.ticket import Ticket

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.support.child"])


def start(order: dict[str, Any]) -> Connection:
    """Start a process that calls the model as `order` says; `receive` its outcomes."""
    return _start(call_the_model, **order)


def start_to_be_killed(order: dict[str, Any]) -> BaseProcess:
    """Start a process as `start` does, whose outcomes nobody will read."""
    receiver, process = _start_process(call_the_model, order)
    receiver.close()
    return process


def _start(task: Callable[..., list[Any]], **order: Any) -> Connection:
    return _start_process(task, order)[0]


def _start_process(
    task: Callable[..., list[Any]], order: dict[str, Any]
) -> tuple[Connection, BaseProcess]:
    environment = {**os.environ, "LLMCACHE_TEST_CHILD": "1"}
    receiver, sender = processes.Pipe(duplex=False)
    arguments = (task, order, environment, sender)
    process = processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    sender.close()
    return receiver, process


def start_rows(rows: list[Row], llmcache_settings: dict[str, Any], root: str) -> Connection:
    """Start a process that asks each row of the conformance table; `receive` the outcomes."""
    return _start(ask_rows, rows=rows, llmcache_settings=llmcache_settings, root=root)


def start_recipes(names: list[str], llmcache_settings: dict[str, Any], root: str) -> Connection:
    """Start a process that asks by recipes for frameworks; `receive` what came back."""
    return _start(ask_recipes, names=names, llmcache_settings=llmcache_settings, root=root)


def start_counted(order: dict[str, Any]) -> Connection:
    """Start a process that calls in many ways, and logs each call; `receive` nothing."""
    return _start(call_and_log, **order)


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
        result = task(**order)
        from llmcache.background import database

        # What is written at the end would come when the next test has begun.
        database.finish()
        sender.send(result)
        os._exit(0)
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
    linger: float = 0,
) -> list[tuple[str, str | None, str]]:
    set_up(llmcache_settings)
    client: Any = llmcache.from_provider(
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
    time.sleep(linger)  # what goes on behind the caller would end with the process
    return [(str(call.outcome), call.tier and str(call.tier), call.reason) for call in calls]


def ask_rows(*, rows: list[Row], llmcache_settings: dict[str, Any], root: str) -> list[str]:
    set_up(llmcache_settings)
    with llmcache.capture() as calls, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            ask(row, make_client(row, root))
    return [str(call.outcome) for call in calls]


def ask_recipes(*, names: list[str], llmcache_settings: dict[str, Any], root: str) -> list[Any]:
    set_up(llmcache_settings)
    from tests.support.frameworks import RECIPES

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [RECIPES[name].ask(root) for name in names]


def call_and_log(
    *, llmcache_settings: dict[str, Any], base_url: str, times: int, seed: int, log: str
) -> list[Any]:
    set_up(llmcache_settings)
    from llmcache.signals import call_answered
    from llmcache.usage import ledger

    client: Any = llmcache.from_provider("openai/gpt-4.1-mini", api_key="k", base_url=base_url)
    dice = random.Random(seed)
    with Path(log).open("w") as lines:

        def write(call: Call, **_: Any) -> None:
            lines.write(
                json.dumps(
                    asdict(call) | {"receipt": None, "saved": call.saved and asdict(call.saved)}
                )
                + "\n"
            )

        call_answered.connect(write)
        for _ in range(times):
            _call_somehow(client, dice)
    ledger.flush()
    return []


def _call_somehow(client: Any, dice: random.Random) -> None:
    ways: list[tuple[int, dict[str, Any]]] = [
        (80, {}),
        (4, {"cache_namespace": dice.choice(["a", "A", "b"])}),
        (3, {"cache_mode": "reload"}),
        (3, {"cache_mode": "no-store"}),
        (3, {"cache_mode": "only-if-cached", "temperature": 0.9}),
        (3, {"context": {"now": time.time, str(dice.random()): 1}}),
        (2, {"cache_ttl": 0.05, "temperature": 0.5}),
        (2, {"cache_mode": "force-cache", "cache_ttl": 0.05, "temperature": 0.5}),
        (2, {"model": "no-such-model"}),
    ]
    [(_, way)] = dice.choices(ways, [weight for weight, _ in ways])
    # (what has expired is to be asked for again)
    number = 0 if "cache_ttl" in way else dice.expovariate(0.1)
    question = f"Question {int(number)}"
    with suppress(llmcache.CacheMiss):
        client.create(
            response_model=Ticket, messages=[{"role": "user", "content": question}], **way
        )


def set_up(llmcache_settings: dict[str, Any]) -> None:
    import django

    django.setup()
    from django.conf import settings

    settings.LLMCACHE = llmcache_settings


async def _finish(answer: Any) -> None:
    await answer
