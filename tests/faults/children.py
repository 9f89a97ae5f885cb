"""Processes of their own that use llmcache, and can be talked to, and killed.

A task is a function of a module that both sides can import; it is given the line to its parent, and
what it returns is the last thing that the parent hears.
"""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from tests.faults.sites import Site
from tests.support.child import processes

PATIENCE_SECONDS = 120.0


class Child:
    """A process that does `task(line, **order)` on `site`."""

    def __init__(self, site: Site, task: Callable[..., Any], **order: Any) -> None:
        self._line, line = processes.Pipe()
        self._process = processes.Process(target=_work, args=(site, task, order, line), daemon=True)
        self._process.start()
        line.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def was_killed(self) -> bool:
        """Whether it has ended by SIGKILL."""
        return self._process.exitcode == -signal.SIGKILL

    def tell(self, message: Any) -> None:
        self._line.send(message)

    def hear(self, seconds: float = PATIENCE_SECONDS) -> Any:
        """What it says next. Fails when that is an error, or nothing."""
        assert self._line.poll(seconds), "the process said nothing in time"
        message = self._line.recv()
        assert not isinstance(message, Failure), message.traceback
        return message

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL)."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        self.kill()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Failure:
    """What a process says whose task raised."""

    traceback: str


def do(site: Site, task: Callable[..., Any], **order: Any) -> Any:
    """What `task` returns, done by a process of its own."""
    with Child(site, task, **order) as child:
        return child.hear()


def do_all(children: Iterable[Child], seconds: float = PATIENCE_SECONDS) -> list[Any]:
    """What each says next."""
    return [child.hear(seconds) for child in children]


def migrate(line: Connection, *, database: str) -> None:
    """A task: make the tables."""
    from django.core.management import call_command

    call_command("migrate", database=database, verbosity=0)


def prepare(site: Site) -> Site:
    """`site`, with its tables made."""
    do(site, migrate, database=site.database)
    return site


def _work(site: Site, task: Callable[..., Any], order: dict[str, Any], line: Connection) -> None:
    try:
        _set_up(site)
        line.send(task(line, **order))
    except BaseException:
        with suppress(OSError):
            line.send(Failure(traceback.format_exc()))
        raise


def _set_up(site: Site) -> None:
    os.environ.update(site.environment, DJANGO_SETTINGS_MODULE="tests.settings")
    import django
    from django.conf import settings

    django.setup()
    settings.LLMCACHE = site.llmcache
    # Each failure of a tier is logged, which is right, and thousands of lines here.
    logging.getLogger("llmcache").setLevel(logging.CRITICAL)
