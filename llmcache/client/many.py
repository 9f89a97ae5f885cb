"""`create_many` and `acreate_many`: the answers to many requests at once.

The rules of each call are those of the flow. What is done together is the lookup, and what waits
is the model: a synchronous caller drives all flows on its own thread, since where rows may be
written depends on its transaction, and only the asking goes to other threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from django.db import connections
from instructor import AsyncInstructor, Instructor

from llmcache.client.checking import checked_once
from llmcache.client.requests import ClientRequest, Origin, read_request
from llmcache.client.wrapping import AsyncCachedCreate, CachedCreate
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.flow import Elsewhere, Shared, adrive, drive_but_asking
from llmcache.outcomes import Call
from llmcache.policy import CacheMode
from llmcache.store import entries
from llmcache.store.entries import Found, Missing
from llmcache.store.safety import ends_the_task

Progress = Callable[[int, int], object]

CONCURRENCY: Final = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request: its `answer`, or the `error`; and how, as `capture` has it."""

    answer: Any
    error: Exception | None
    call: Call

    def unwrap(self) -> Any:
        """The answer. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return self.answer


def create_many(
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result]:
    """Answer many requests: from the store with one round trip a tier, else from the model.

    Each is answered as by ``client.create(**request)``. Requests with the same key are looked up
    and asked once, but for those with the mode ``no-store``; each gets an object of its own, made
    from what is stored, or all get the error. Where the answer cannot be stored, the next one
    asks for itself, as it would in a row of calls.

    Args:
        client: a synchronous client that `from_provider` or `wrap` made.
        requests: the arguments of each call; ``cache_mode`` and its like are among them.
        concurrency: how many calls to the model there are at a time, at most.
        progress: called with how many requests are done, and how many there are, after each one.
            Where it raises, nothing more is asked; what has been asked is waited for and stored,
            and then its error is raised.

    Returns:
        A `Result` for each request, in their order.

    Raises:
        InvalidArgument: when an argument of this function or of a request cannot be meant. Nobody
            has been asked then.
    """
    origin = _origin_of(client, "create_many", is_async=False)
    batch = _read(origin, client, requests, concurrency, progress)
    batch.share(entries.lookup_many(batch.keys, stale=batch.stale_keys))
    _Threads(batch, concurrency).run()
    return batch.in_order()


async def acreate_many(
    client: AsyncInstructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result]:
    """`create_many` for a coroutine, with an asynchronous client; `progress` is a plain function.

    Cancelling it cancels the calls that are under way.
    """
    origin = _origin_of(client, "acreate_many", is_async=True)
    batch = _read(origin, client, requests, concurrency, progress)
    batch.share(await entries.alookup_many(batch.keys, stale=batch.stale_keys))
    slots = asyncio.Semaphore(concurrency)
    tasks = [asyncio.ensure_future(_answer(batch, group, slots)) for group in batch.groups]
    try:
        await _finished(batch, tasks)
    finally:
        # Nothing is left to cancel but where this coroutine is cancelled itself.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return batch.in_order()


@dataclass(slots=True)
class _Group:
    """The requests of one key, each with its place; one that is not shared stands alone."""

    requests: list[tuple[int, ClientRequest]]
    shared: Shared = field(default_factory=Shared)
    error: Exception | None = None

    @property
    def key(self) -> str:
        return self.requests[0][1].call.key

    @property
    def is_found(self) -> bool:
        return isinstance(self.shared.found, Found)

    def prepare(self, request: ClientRequest) -> None:
        """What was made for another one just now is new enough for whoever wants it new."""
        if self.shared.made and request.policy.mode is CacheMode.RELOAD:
            request.policy = replace(request.policy, mode=CacheMode.DEFAULT)

    def may_ask(self) -> None:
        """Raise what the model has raised for the same request; else, forget what was found."""
        if self.error is not None:
            raise self.error
        # It may be removed while the model is asked.
        self.shared.found, self.shared.made = None, False


class _Batch:
    """All requests, in groups, and what has become of them."""

    def __init__(self, requests: list[ClientRequest], progress: Progress | None) -> None:
        self.groups = _grouped(requests)
        self.progress = progress
        self.stopped = False
        self._results: dict[int, Result] = {}
        self._total = len(requests)

    @property
    def keys(self) -> list[str]:
        """What is to be looked up."""
        return self._keys_with(lambda mode: mode.reads)

    @property
    def stale_keys(self) -> list[str]:
        return self._keys_with(lambda mode: mode is CacheMode.FORCE_CACHE)

    def share(self, found: dict[str, Found | Missing]) -> None:
        """Give each group what was found; those that have something come first."""
        for group in self.groups:
            group.shared.found = found.get(group.key)
        self.groups.sort(key=lambda group: not group.is_found)

    def finish(self, number: int, result: Result) -> None:
        self._results[number] = result
        if self.progress is not None:
            self.progress(len(self._results), self._total)

    def stop(self) -> None:
        """Ask no more, and tell nobody."""
        self.stopped, self.progress = True, None

    def in_order(self) -> list[Result]:
        return [self._results[number] for number in range(self._total)]

    def _keys_with(self, wanted: Callable[[CacheMode], bool]) -> list[str]:
        return [
            group.key
            for group in self.groups
            if any(
                _is_shared(request) and wanted(request.policy.mode) for _, request in group.requests
            )
        ]


def _grouped(requests: list[ClientRequest]) -> list[_Group]:
    groups: dict[object, _Group] = {}
    for number, request in enumerate(requests):
        together = request.call.key if _is_shared(request) else number
        groups.setdefault(together, _Group([])).requests.append((number, request))
    return list(groups.values())


def _is_shared(request: ClientRequest) -> bool:
    return not request.bypass and request.policy.mode is not CacheMode.NO_STORE


class _Threads:
    """Asks the model on threads, for flows that run on the thread of the caller."""

    def __init__(self, batch: _Batch, concurrency: int) -> None:
        self._batch = batch
        self._concurrency = concurrency
        self._running: dict[Future[Any], tuple[_Group, _Answering]] = {}
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
                self._begin(waiting.popleft())
            if self._running:
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._go_on(future)

    def _begin(self, group: _Group) -> None:
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
        self, group: _Group, answering: _Answering, resume: Callable[[], Elsewhere]
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


def _answering(batch: _Batch, group: _Group) -> _Answering:
    """Answer the requests of `group`, one after the other; yields what is to be done elsewhere."""
    for number, request in group.requests:
        group.prepare(request)
        flow = drive_but_asking(request, request.ask, group.shared)
        try:
            answer = yield from _asking_once(group, flow)
        except Exception as error:  # (the caller finds it in the result)
            if ends_the_task(error):
                raise
            result = Result(None, _as_raised(error), request.call)
        else:
            result = Result(answer, None, request.call)
        batch.finish(number, result)


def _asking_once(
    group: _Group, flow: Generator[Elsewhere, Any, Any]
) -> Generator[Elsewhere, Any, Any]:
    try:
        elsewhere = next(flow)
        while True:
            try:
                if elsewhere.asks:
                    group.may_ask()
                result = yield elsewhere
            except BaseException as error:  # noqa: BLE001 - the flow raises it again
                if isinstance(error, Exception) and elsewhere.asks:
                    group.error = error
                elsewhere = flow.throw(error)
            else:
                elsewhere = flow.send(result)
    except StopIteration as end:
        return end.value


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


async def _answer(batch: _Batch, group: _Group, slots: asyncio.Semaphore) -> None:
    """Answer the requests of `group`, one after the other."""
    for number, request in group.requests:
        group.prepare(request)
        # A flow notes when it asks, so it starts when it may. A hit waits for nobody.
        late = group.is_found and request.policy.mode.reads
        async with _turn(slots, taken=late):
            if batch.stopped:
                return
            ask = partial(_ask_once, group, request, _turn(slots, taken=not late))
            try:
                answer = await adrive(request, ask, group.shared)
            except Exception as error:  # (the caller finds it in the result)
                if ends_the_task(error):
                    raise
                result = Result(None, error, request.call)
            else:
                result = Result(answer, None, request.call)
        batch.finish(number, result)


def _turn(slots: asyncio.Semaphore, *, taken: bool) -> AbstractAsyncContextManager[Any]:
    return nullcontext() if taken else slots


async def _ask_once(
    group: _Group, request: ClientRequest, turn: AbstractAsyncContextManager[Any]
) -> Any:
    group.may_ask()
    async with turn:
        try:
            return await request.ask()
        except Exception as error:
            group.error = error
            raise


async def _finished(batch: _Batch, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for all tasks. When one raises, the others ask no more, and store what they have."""
    if tasks:
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if others:
            batch.stop()
            await asyncio.wait(others)
        for task in done:
            task.result()


def _origin_of(client: Any, function: str, *, is_async: bool) -> Origin:
    create_fn = getattr(client, "create_fn", None)
    if not isinstance(create_fn, CachedCreate):
        raise InvalidArgumentType(
            f"{function}() takes a client that llmcache.from_provider() or llmcache.wrap() made."
        )
    if isinstance(create_fn, AsyncCachedCreate) is not is_async:
        kind, other = ("synchronous", "create_many()")
        if not is_async:
            kind, other = ("asynchronous", "await acreate_many()")
        raise InvalidArgumentType(f"The client is {kind}: call {other} with it.")
    return create_fn.origin


def _read(
    origin: Origin,
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    concurrency: int,
    progress: Progress | None,
) -> _Batch:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int):
        raise InvalidArgumentType(f"concurrency is a whole number; not {concurrency!r}.")
    if concurrency < 1:
        raise InvalidArgument(f"concurrency is 1 or more; not {concurrency!r}.")
    if progress is not None and not callable(progress):
        raise InvalidArgumentType(f"progress is a function of two numbers; not {progress!r}.")
    if isinstance(requests, str | Mapping) or not isinstance(requests, Iterable):
        raise InvalidArgumentType("requests is a list of dicts: the arguments of each call.")
    read = partial(_read_one, _reader(origin, client))
    return _Batch([read(*numbered) for numbered in enumerate(requests)], progress)


def _reader(origin: Origin, client: Instructor) -> Instructor:
    """A copy of `client` whose `create` reads a call as the client's own does, and asks nobody."""
    reader: Any = object.__new__(Instructor)
    vars(reader).update(vars(client), create_fn=partial(_read_call, origin))
    vars(reader).pop("create", None)  # the client's, not the copy's
    vars(reader).update(checked_once(reader))
    return reader  # type: ignore[no-any-return]


def _read_call(origin: Origin, response_model: Any = None, **arguments: Any) -> ClientRequest:
    request = read_request(origin, response_model, arguments)
    if arguments.get("stream"):
        request.bypass = request.bypass or "streamed answers are not cached when many are asked"
    return request


def _read_one(reader: Any, number: int, request: object) -> ClientRequest:
    where = f"requests[{number}]"
    if not isinstance(request, Mapping):
        raise InvalidArgumentType(f"{where} is a dict, the arguments of a call; not {request!r}.")
    try:
        return reader.create(**request)  # type: ignore[no-any-return]
    except InvalidArgument as error:
        error.add_note(f"({where})")
        raise
    except TypeError as error:
        # As of a call without messages, or without a response model.
        raise InvalidArgumentType(f"{where} is no call of a client: {error}.") from None
