"""The answers to a batch on threads of the caller's: so many are asked for at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from contextvars import copy_context
from typing import Any

from django.db import connections

from llmcache import trampoline
from llmcache.client.many.batch import Batch, Group, Result
from llmcache.flow.drivers import Elsewhere, drive_but_asking
from llmcache.resilience.failsafe import ends_the_task

_Answering = Generator[Elsewhere, Any, None]


class Threads:
    """Asks the model on threads, for flows that run on the thread of the caller."""

    def __init__(self, batch: Batch, concurrency: int) -> None:
        self._batch = batch
        self._concurrency = concurrency
        self._running: dict[Future[Any], _Answering] = {}
        # (it starts no thread before it is given work)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="llmcache many")

    def run(self) -> None:
        try:
            self._run()
        except BaseException:
            self._batch.stop()
            self._keep_what_was_asked()
            raise
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _run(self) -> None:
        waiting = deque(self._batch.groups)
        while waiting or self._running:
            # A flow notes when it asks, so it starts when it may. A hit waits for nobody.
            while waiting and (waiting[0].is_found or len(self._running) < self._concurrency):
                answering = _answering(self._batch, waiting.popleft())
                self._until_asking(answering, answering.send, None)
            if self._running:
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._go_on(future)

    def _go_on(self, future: Future[Any]) -> None:
        answering = self._running.pop(future)
        if error := future.exception():
            self._until_asking(answering, answering.throw, error)
        else:
            self._until_asking(answering, answering.send, future.result())

    def _until_asking(
        self, answering: _Answering, resume: Callable[[Any], Elsewhere], came: Any
    ) -> None:
        with suppress(StopIteration):
            elsewhere = resume(came)
            if self._batch.stopped:
                answering.close()
            else:
                future = self._pool.submit(copy_context().run, _carry_out, elsewhere)
                self._running[future] = answering

    def _keep_what_was_asked(self) -> None:
        for future, answering in list(self._running.items()):
            if future.cancel():
                answering.close()
            else:
                with suppress(Exception):
                    wait([future])
                    self._go_on(future)


def _answering(batch: Batch, group: Group) -> _Answering:
    """Answer the requests of `group`, one after the other; yields what is to be done elsewhere."""

    def perform(elsewhere: Elsewhere) -> Generator[Elsewhere, Any, Any]:
        with group.asking() if elsewhere.asks else nullcontext():
            return (yield elsewhere)

    for number, request in group.requests:
        group.prepare(request)
        flow = drive_but_asking(request, request.ask, group.shared)
        try:
            answer, error = (yield from trampoline.relay(flow, perform)), None
        except Exception as raised:  # (the caller finds it in the result)
            if ends_the_task(raised):
                raise
            answer, error = None, _as_raised(raised)
        batch.finish(number, Result(answer, error, request.call))


def _as_raised(error: Exception) -> Exception:
    """What the model raised: no generator lets a `StopIteration` through as it is (PEP 479)."""
    cause = error.__cause__
    return cause if isinstance(cause, StopIteration) else error


def _carry_out(elsewhere: Elsewhere) -> Any:
    try:
        return elsewhere.work()
    finally:
        # What hooks and validators have opened on this thread, nobody else would close.
        with suppress(Exception):
            connections.close_all()
