"""`create_many` and `acreate_many`: the answers to many requests at once.

The rules of each call are those of the flow. What is done together is the lookup, and what waits
is the model: a synchronous caller drives all flows on its own thread, since where rows may be
written depends on its transaction, and only the asking goes to other threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final, cast, overload

from instructor import AsyncInstructor, Instructor

from llmcache import store
from llmcache.background import database
from llmcache.client.call.origin import Origin
from llmcache.client.call.request import ClientRequest, read_request
from llmcache.client.many.batch import Answer, Batch, Group, Progress, Result
from llmcache.client.many.threads import Threads
from llmcache.client.wrapping import checked_once, origin_of
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.flow.drivers import adrive
from llmcache.policy import UNSET
from llmcache.reasons import ReasonCode
from llmcache.resilience.failsafe import ends_the_task

CONCURRENCY: Final = 8


@overload
def create_many(
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]: ...


@overload
def create_many(
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: type[Answer],
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Answer]]: ...


@overload
def create_many(
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: Any,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]: ...


def create_many(
    client: Instructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: Any = UNSET,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]:
    """Answer many requests: from the store with one round trip a tier, else from the model.

    Each is answered as by ``client.create(**request)``. Requests with the same key are looked up
    and asked once, but for those with the mode ``no-store``; each gets an object of its own, made
    from what is stored, or all get the error. Where the answer cannot be stored, the next one
    asks for itself, as it would in a row of calls.

    Args:
        client: a synchronous client that `from_provider` or `wrap` made.
        requests: the arguments of each call; ``cache_mode`` and its like are among them.
        response_model: the class of all answers, where the requests name none. A type checker then
            knows what `Result.unwrap` returns.
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
    batch = _read(client, requests, response_model, concurrency, progress, is_async=False)
    batch.share(store.lookup_many(**batch.lookups))
    Threads(batch, concurrency).run()
    return batch.in_order()


@overload
async def acreate_many(
    client: AsyncInstructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]: ...


@overload
async def acreate_many(
    client: AsyncInstructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: type[Answer],
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Answer]]: ...


@overload
async def acreate_many(
    client: AsyncInstructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: Any,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]: ...


async def acreate_many(
    client: AsyncInstructor,
    requests: Iterable[Mapping[str, Any]],
    *,
    response_model: Any = UNSET,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> list[Result[Any]]:
    """`create_many` for a coroutine, with an asynchronous client; `progress` is a plain function.

    Cancelling it cancels the calls that are under way.
    """
    database.running_loop()
    batch = _read(client, requests, response_model, concurrency, progress, is_async=True)
    batch.share(await store.alookup_many(**batch.lookups))
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


async def _answer(batch: Batch, group: Group, slots: asyncio.Semaphore) -> None:
    """Answer the requests of `group`, one after the other."""
    for number, request in group.requests:
        group.prepare(request)
        # A flow notes when it asks, so it starts when it may. A hit waits for nobody.
        is_hit = group.is_found and request.policy.mode.reads
        before, asking = (nullcontext(), slots) if is_hit else (slots, nullcontext())
        async with before:
            if batch.stopped:
                return
            ask = partial(_ask, group, request, asking)
            try:
                answer, error = await adrive(request, ask, shared=group.shared), None
            except Exception as raised:  # (the caller finds it in the result)
                if ends_the_task(raised):
                    raise
                answer, error = None, raised
        batch.finish(number, Result(answer, error, request.call))


async def _ask(group: Group, request: ClientRequest, slot: AbstractAsyncContextManager[Any]) -> Any:
    with group.asking():
        async with slot:
            return await request.ask()


async def _finished(batch: Batch, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for all tasks. When one raises, the others ask no more, and store what they have."""
    if tasks:
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if others:
            batch.stop()
            await asyncio.wait(others)
        for task in done:
            task.result()


def _read(
    client: Any,
    requests: Iterable[Mapping[str, Any]],
    response_model: Any,
    concurrency: int,
    progress: Progress | None,
    *,
    is_async: bool,
) -> Batch:
    origin = origin_of(client, "acreate_many" if is_async else "create_many")
    if isinstance(client, AsyncInstructor) is not is_async:
        kind, other = ("synchronous", "") if is_async else ("asynchronous", "await a")
        raise InvalidArgumentType(f"The client is {kind}: call {other}create_many() with it.")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int):
        raise InvalidArgumentType(f"concurrency is a whole number; not {concurrency!r}.")
    if concurrency < 1:
        raise InvalidArgument(f"concurrency is 1 or more; not {concurrency!r}.")
    if progress is not None and not callable(progress):
        raise InvalidArgumentType(f"progress is a function of two numbers; not {progress!r}.")
    if isinstance(requests, str | Mapping) or not isinstance(requests, Iterable):
        raise InvalidArgumentType("requests is a list of dicts: the arguments of each call.")
    read = partial(_read_one, _reader(origin, client), response_model)
    return Batch([read(*numbered) for numbered in enumerate(requests)], progress)


def _reader(origin: Origin, client: Instructor) -> Instructor:
    """A copy of `client` whose `create` reads a call as the client's own does, and asks nobody."""

    def read(response_model: Any = None, **arguments: Any) -> ClientRequest:
        request = read_request(origin, response_model, arguments)
        if arguments.get("stream"):
            request.bypass = request.bypass or ReasonCode.STREAMS_OF_MANY()
        return request

    reader: Any = object.__new__(Instructor)
    vars(reader).update(vars(client), create_fn=read)
    vars(reader).pop("create", None)  # the client's, not the copy's
    vars(reader).update(checked_once(reader))
    return cast(Instructor, reader)


def _read_one(reader: Any, response_model: Any, number: int, request: object) -> ClientRequest:
    try:
        return _read_as_call(reader, response_model, request)
    except InvalidArgument as error:
        error.number = number
        raise


def _read_as_call(reader: Any, response_model: Any, request: object) -> ClientRequest:
    if not isinstance(request, Mapping):
        raise InvalidArgumentType(
            f"A request is a dict, the arguments of a call; not a {type(request).__name__}."
        )
    for_all = {} if response_model is UNSET else {"response_model": response_model}
    if for_all.keys() & request.keys():
        raise InvalidArgument("It names a response_model, and so does the call. One of the two.")
    try:
        return cast(ClientRequest, reader.create(**request, **for_all))
    except InvalidArgument:
        raise
    except TypeError as error:
        # As of a call without messages, or without a response model.
        raise InvalidArgumentType(f"It is no call of a client: {error}.") from None
