"""A thousand callers who ask the same question at the same moment."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import instructor
import openai

import llmcache
from project.standin.server import Call, StandIn
from tests.faults.children import Child, do_all
from tests.faults.sites import Site
from tests.support.ticket import Ticket

MODEL = "gpt-4.1-mini"


@dataclass(frozen=True)
class Caller:
    """What one of them saw; moments of the machine's monotonic clock, in seconds."""

    ended: float
    title: str = ""
    error: str = ""
    # How it was answered, and why so, in words.
    how: str = ""
    # When the model answered, for one who asked it.
    answered: float | None = None


class Herd:
    """Processes with so many callers each, threads or coroutines, who wait for the word."""

    def __init__(self, site: Site, model: StandIn, *, processes: int, callers: int) -> None:
        self.site = site
        self.model = model
        self._order = {"url": model.url, "callers": callers}
        self._children = [self._start() for _ in range(processes)]
        do_all(self._children)

    def ask(self, question: str, *, is_async: bool) -> None:
        """Have all of them ask, now."""
        self.model.forget()
        for child in self._children:
            child.tell((question, is_async))

    def seen(self) -> list[Caller]:
        """What those saw whose process is still there."""
        return [caller for child in self._children if child.alive for caller in child.hear()]

    def kill_who_asks(self, number: int) -> None:
        """Wait until the model is asked for the `number`th time, and kill the process that did."""
        while len(self.model.calls) < number:
            time.sleep(0.01)
        asking = process_of(self.model.calls[number - 1])
        [child] = [child for child in self._children if child.pid == asking]
        child.kill()

    def replace_the_killed(self) -> None:
        """Start as many processes as were killed."""
        self._children = [child for child in self._children if child.alive] + [
            self._restarted(child) for child in self._children if not child.alive
        ]

    def close(self) -> None:
        for child in self._children:
            child.close()

    def _start(self) -> Child:
        return Child(self.site, call_at_once, **self._order)

    def _restarted(self, dead: Child) -> Child:
        dead.close()
        child = self._start()
        child.hear()
        return child


def process_of(call: Call) -> int:
    """The process that asked: its number is its API key."""
    return int(call.headers["authorization"].removeprefix("Bearer "))


def lag(callers: list[Caller]) -> float:
    """How many seconds after the last answer of the model the slowest caller had it."""
    answered = [caller.answered for caller in callers if caller.answered is not None]
    return max(caller.ended for caller in callers) - max(answered)


def call_at_once(line: Connection, *, url: str, callers: int) -> None:
    """A task: whenever a question comes, `callers` ask it at the same moment."""
    asked = Asked()
    client, aclient = asked.client(url, is_async=False), asked.client(url, is_async=True)
    client.create(**_call(f"What is imported by process {os.getpid()}?"))
    line.send("ready")
    while True:
        question, is_async = line.recv()
        if is_async:
            line.send(_acall_together(aclient, asked, question, callers))
        else:
            line.send(_call_together(client, asked, question, callers))


class Asked:
    """Notes when the model answered, of those calls that asked it."""

    def __init__(self) -> None:
        self.answered: dict[Any, float] = {}

    def client(self, url: str, *, is_async: bool) -> Any:
        sdk: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        arguments: dict[str, Any] = {"api_key": str(os.getpid()), "base_url": url, "max_retries": 0}
        # (a connection that is kept belongs to the event loop of the question before)
        arguments["default_headers"] = {"Connection": "close"}
        plain: Any = instructor.from_openai(sdk(**arguments))
        plain.create_fn = (self._anoted if is_async else self._noted)(plain.create_fn)
        return llmcache.wrap(plain, model=MODEL)

    def _noted(self, create: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            answer = create(*args, **kwargs)
            self.answered[threading.current_thread()] = time.monotonic()
            return answer

        return noted

    def _anoted(self, create: Any) -> Any:
        async def noted(*args: Any, **kwargs: Any) -> Any:
            answer = await create(*args, **kwargs)
            self.answered[asyncio.current_task()] = time.monotonic()
            return answer

        return noted


def _call(question: str) -> dict[str, Any]:
    return {"response_model": Ticket, "messages": [{"role": "user", "content": question}]}


def _call_together(client: Any, asked: Asked, question: str, callers: int) -> list[Caller]:
    seen: list[Caller] = []
    start = threading.Barrier(callers)

    def call() -> None:
        start.wait()
        with _seen(seen, asked.answered, threading.current_thread()) as titles:
            titles.append(client.create(**_call(question)).title)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _acall_together(client: Any, asked: Asked, question: str, callers: int) -> list[Caller]:
    seen: list[Caller] = []

    async def call() -> None:
        with _seen(seen, asked.answered, asyncio.current_task()) as titles:
            titles.append((await client.create(**_call(question))).title)

    async def all_of_them() -> None:
        await asyncio.gather(*(call() for _ in range(callers)))

    asyncio.run(all_of_them())
    return seen


@contextmanager
def _seen(seen: list[Caller], answered: dict[Any, float], who: Any) -> Iterator[list[str]]:
    titles, error = [""], ""
    with llmcache.capture() as calls:
        try:
            yield titles
        except Exception as raised:  # noqa: BLE001 - that is what is looked for
            error = repr(raised)
    how = ", ".join(f"{call.outcome}: {call.reason}" for call in calls)
    seen.append(Caller(time.monotonic(), titles[-1], error, how, answered.get(who)))
