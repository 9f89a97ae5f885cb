"""Workers that are killed (SIGKILL) at a named point, and the journal of what they had been told.

A worker asks and invalidates until it comes by its point for the last time. What was acknowledged
to it, it has written down before: that must hold, whatever happened to it after.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import llmcache
from llmcache.codec.envelope import ANSWER, unseal
from tests.faults.model import Model, call_for

THREADS = 2
COROUTINES = 2
# Questions that all workers ask, so that some wait for the answer of one who is killed.
SHARED = 10
TAGS = 40
# The point is passed so many times before it is the last.
MOST_PASSES = 12
MODEL_SECONDS = 0.02
MIX = {"new": 10, "shared": 6, "own": 3, "invalidate keys": 2, "invalidate a tag": 1}


@dataclass(frozen=True)
class Point:
    """Where a worker can be killed: before or after a function of llmcache."""

    where: str
    functions: tuple[str, ...]
    after: bool = False


ASKING: Final = "while the model is asked"
POINTS: Final = (
    Point(
        "after the lookup",
        ("llmcache.store.lookup", "llmcache.store.alookup"),
        after=True,
    ),
    Point("after the lease was taken", ("llmcache.leases.acquisition._held",), after=True),
    Point(ASKING, ()),
    Point("before the row is committed", ("llmcache.store.rows.tier.upsert",), after=True),
    Point("after the commit, before the hot copy", ("llmcache.store.promotion.promote",)),
    Point("after the hot copy", ("llmcache.store.promotion.promote",), after=True),
    Point("before the lease is given back", ("llmcache.leases.acquisition.Lease.end",)),
    Point("after the audit row", ("llmcache.removal.audit.start",), after=True),
    Point("before the removal is committed", ("llmcache.store.rows.tier.delete",), after=True),
    Point("between the rows and the hot copies", ("llmcache.store.evictions.evict",)),
    Point("after the hot copies", ("llmcache.store.evictions._cross_off",)),
    Point("before the audit row is finished", ("llmcache.removal.audit.finish",)),
)


def work(line: Connection, *, point: Point | None, seed: int, journal: Path) -> str:
    """A task: ask and invalidate until killed at `point`; without one, until told to stop."""
    dice = random.Random(seed)
    fuse = Fuse(dice.randint(1, MOST_PASSES))
    stop = threading.Event()
    with Journal(journal) as notes:
        workers = [
            Worker(f"{seed}/{number}", notes, is_async=number >= THREADS)
            for number in range(THREADS + COROUTINES)
        ]
        _note_drafts(notes)
        if point is not None:
            lay(point, fuse, [worker.model for worker in workers])
        threads = [
            threading.Thread(target=worker.call_until, args=(stop,)) for worker in workers[:THREADS]
        ]
        threads.append(threading.Thread(target=_acall_until, args=(workers[THREADS:], stop)))
        for thread in threads:
            thread.start()
        line.recv()
        stop.set()
        for thread in threads:
            thread.join()
    return "stopped"


class Fuse:
    """Kills the process when it has been passed so many times."""

    def __init__(self, passes: int) -> None:
        self._left = passes

    def burn(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def lay(point: Point, fuse: Fuse, models: list[Model]) -> None:
    """Have `fuse` burn whenever the process comes by `point`."""
    for path in point.functions:
        owner, name = _found(path)
        setattr(owner, name, _burning(getattr(owner, name), fuse, after=point.after))
    if point.where == ASKING:
        for model in models:
            model.number = _burning(model.number, fuse, after=False)


def _found(path: str) -> tuple[Any, str]:
    """The object that the last name of a dotted path is looked up on."""
    parts = path.split(".")
    is_class = parts[-2][0].isupper()
    module: Any = import_module(".".join(parts[: -2 if is_class else -1]))
    return (getattr(module, parts[-2]) if is_class else module), parts[-1]


def _burning(function: Callable[..., Any], fuse: Fuse, *, after: bool) -> Any:
    if iscoroutinefunction(function):

        @wraps(function)
        async def aburning(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            fuse.burn()
            return result

        return aburning

    @wraps(function)
    def burning(*args: Any, **kwargs: Any) -> Any:
        if not after:
            fuse.burn()
        result = function(*args, **kwargs)
        if after:
            fuse.burn()
        return result

    return burning


class Journal:
    """Lines that are on their way to the disk before the next thing happens."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, kind: str, **facts: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.monotonic_ns(), **facts})
        os.write(self._file, line.encode() + b"\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


class Worker:
    """A thread or a coroutine that asks and invalidates. An answer says when it was asked for."""

    def __init__(self, name: str, notes: Journal, *, is_async: bool) -> None:
        self.model = Model(lambda _: time.monotonic_ns(), latency=MODEL_SECONDS)
        self._client = self.model.client(is_async=is_async)
        self._name = name
        self._notes = notes
        self._dice = random.Random(name)
        self._made = 0

    def call_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            kind, arguments = self._next()
            with self._noted(kind, arguments) as result:
                if kind == "create":
                    result.append(self._client.create(**arguments))
                else:
                    result.append(llmcache.invalidate(**arguments))

    async def acall_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            kind, arguments = self._next()
            with self._noted(kind, arguments) as result:
                if kind == "create":
                    result.append(await self._client.create(**arguments))
                else:
                    result.append(await llmcache.ainvalidate(**arguments))

    def _next(self) -> tuple[str, dict[str, Any]]:
        [kind] = self._dice.choices(list(MIX), list(MIX.values()))
        if kind == "invalidate a tag":
            return "invalidate", {"tags": [f"tag {self._dice.randrange(TAGS)}"]}
        if kind == "shared":
            question = f"shared {self._dice.randrange(SHARED)}"
        else:
            self._made += kind == "new"
            question = f"{self._name} {self._dice.randint(1, max(self._made, 1))}"
            if kind == "new":
                question = f"{self._name} {self._made}"
        tag = f"tag {int(hashlib.sha256(question.encode()).hexdigest(), 16) % TAGS}"
        call = call_for(question, cache_tags=[tag])
        if kind == "invalidate keys":
            return "invalidate", {"keys": [llmcache.key_for(self._client, **call)]}
        return "create", call

    @contextmanager
    def _noted(self, kind: str, arguments: dict[str, Any]) -> Iterator[list[Any]]:
        """Write down what is asked for, and what was acknowledged."""
        name, result = f"{self._name} {time.monotonic_ns()}", list[Any]()
        if kind == "invalidate":
            self._notes.write("invalidating", name=name, **arguments)
        token = _drafted.set([])
        started = time.monotonic()
        with llmcache.capture() as calls:
            yield result
        if kind == "invalidate":
            self._notes.write("invalidated", name=name, pending=list(result[0].pending))
        for call in calls:
            self._notes.write(
                "answered",
                key=call.key,
                seconds=time.monotonic() - started,
                stored=_drafted.get()[-1] if call.stored else None,
            )
        _drafted.reset(token)


# The digests of what the call of this context was going to store.
_drafted: ContextVar[list[str]] = ContextVar("drafted")


def _note_drafts(notes: Journal) -> None:
    """Write down each payload that is going to be stored: some are that nobody hears of."""
    entries: Any = import_module("llmcache.store")
    save, asave = entries.save, entries.asave

    def note(draft: Any) -> None:
        digest = digest_of(draft.payload)
        notes.write(
            "storing",
            key=draft.key,
            tags=sorted(draft.tags),
            digest=digest,
            asked=asked(draft.key, draft.payload),
        )
        _drafted.get([]).append(digest)

    def noted(draft: Any, *args: Any, **kwargs: Any) -> Any:
        note(draft)
        return save(draft, *args, **kwargs)

    async def anoted(draft: Any, *args: Any, **kwargs: Any) -> Any:
        note(draft)
        return await asave(draft, *args, **kwargs)

    entries.save, entries.asave = noted, anoted


def _acall_until(workers: list[Worker], stop: threading.Event) -> None:
    async def together() -> None:
        await asyncio.gather(*(worker.acall_until(stop) for worker in workers))

    asyncio.run(together())


def digest_of(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def asked(key: str, payload: bytes) -> int:
    """When the question was asked that `payload` answers (`time.monotonic_ns`)."""
    found = re.search(rb"number\W+(\d+)", unseal(ANSWER, key, payload).body)
    assert found is not None
    return int(found[1])


@dataclass(frozen=True)
class Remains:
    """What is stored: the payload under each key, and how many leases in rows are still held."""

    rows: dict[str, bytes]
    copies: dict[str, bytes]
    leases: int


def look(line: Connection, *, keys: list[str]) -> Remains:
    """A task: finish what is pending, and say what is stored under `keys`."""
    from django.utils import timezone

    from llmcache.background import transactions
    from llmcache.models import CacheEntry, Lease
    from llmcache.store import evictions
    from llmcache.store.hot import tier as hot

    evictions.finish_evictions()
    rows = CacheEntry.objects.using(transactions.database_alias())
    leases = Lease.objects.using(transactions.database_alias())
    return Remains(
        {
            key: bytes(payload)
            for part in _parts(keys)  # (other tests have left rows of their own)
            for key, payload in rows.filter(key__in=part).values_list("key", "payload")
        },
        {key: copy for part in _parts(keys) for key, copy in hot.read_many(part).items()},
        leases.filter(expires_at__gt=timezone.now()).exclude(token="").count(),
    )


def _parts(keys: list[str]) -> Iterator[list[str]]:
    return (keys[start : start + 500] for start in range(0, len(keys), 500))
