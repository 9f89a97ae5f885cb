"""The answers to a batch on threads of the caller's: so many are asked for at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from django.db import connections

from llmcache import trampoline
from llmcache.client.many.batch import Batch, Group, Result
from llmcache.flow import Elsewhere, drive_but_asking
from llmcache.resilience.failsafe import ends_the_task


class Threads:
    """Asks the model on threads, for flows that run on the thread of the caller."""

    def __init__(self, batch: Batch, concurrency: int) -> None:
        self._batch = batch
        self._concurrency = concurrency
        self._running: dict[Future[Any], tuple[Group, _Answering]] = {}
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
                self._start(waiting.popleft())
            if self._running:
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._go_on(future)

    def _start(self, group: Group) -> None:
        answering = _answering(self._batch, group)
        self._until_asking(group, answering, partial(next, answering))

    def _go_on(self, future: Future[Any]) -> None:
        group, answering = self._running.pop(future)
        error = future.exception()
        if error is None:
            resume = partial(answering.send, future.result())
        else:
            resume = partial(answering.throw, error)
        self._until_asking(group, answering, resume)

    def _until_asking(
        self, group: Group, answering: _Answering, resume: Callable[[], Elsewhere]
    ) -> None:
        with suppress(StopIteration):
            elsewhere = resume()
            if self._batch.stopped:
                answering.close()
            else:
                future = self._pool.submit(copy_context().run, _carry_out, elsewhere)
                self._running[future] = group, answering

    def _keep_what_was_asked(self) -> None:
        for future, (_, answering) in list(self._running.items()):
            if future.cancel():
                answering.close()
            else:
                with suppress(Exception):
                    wait([future])
                    self._go_on(future)


_Answering = Generator[Elsewhere, Any, None]


def _answering(batch: Batch, group: Group) -> _Answering:
    """Answer the requests of `group`, one after the other; yields what is to be done elsewhere."""
    for number, request in group.requests:
        group.prepare(request)
        flow = drive_but_asking(request, request.ask, group.shared)
        try:
            answer = yield from _asking_once(group, flow)
        except Exception as error:  # (the caller finds it in the result)
            if ends_the_task(error):
                raise
            result: Result[Any] = Result(None, _as_raised(error), request.call)
        else:
            result = Result(answer, None, request.call)
        batch.finish(number, result)


def _asking_once(
    group: Group, flow: Generator[Elsewhere, Any, Any]
) -> Generator[Elsewhere, Any, Any]:
    def perform(elsewhere: Elsewhere) -> Generator[Elsewhere, Any, Any]:
        if elsewhere.asks:
            group.may_ask()
        try:
            return (yield elsewhere)
        except Exception as error:
            if elsewhere.asks:
                group.error = error
            raise

    return (yield from trampoline.relay(flow, perform))


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
