"""`from_provider` and `wrap`: clients of instructor that remember."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar, cast, overload

import instructor
from instructor import AsyncInstructor, Instructor, Mode

from llmcache.client.checking import checked_once
from llmcache.client.rebuilding import remember
from llmcache.client.requests import ClientRequest, Origin, read_request
from llmcache.client.streams import as_instructor_gives_it
from llmcache.exceptions import InvalidArgument, InvalidArgumentType, UncacheableRequest
from llmcache.explanation import Explanation, Subject, explain_call
from llmcache.flow import adrive, adrive_stream, drive, drive_stream, take_turn
from llmcache.policy import TTL, UNSET, Policy, Seconds, Unset
from llmcache.store import placement

Client = TypeVar("Client", bound=Instructor)


class CachedCreate:
    """The `create_fn` of a wrapped client."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __call__(self, response_model: Any = None, **arguments: Any) -> Any:
        request = read_request(self.origin, response_model, arguments)
        if request.stream is None:
            return drive(request, request.ask)
        return as_instructor_gives_it(request.stream, drive_stream(request, request.ask_stream))


class AsyncCachedCreate(CachedCreate):
    """The `create_fn` of a wrapped asynchronous client."""

    async def __call__(self, response_model: Any = None, **arguments: Any) -> Any:
        await take_turn()
        request = read_request(self.origin, response_model, arguments)
        if request.stream is None:
            return await adrive(request, request.ask)
        return adrive_stream(request, request.aask_stream)


@overload
def from_provider(
    model: str,
    *,
    async_client: Literal[False] = False,
    mode: Mode | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    **kwargs: Any,
) -> Instructor: ...


@overload
def from_provider(
    model: str,
    *,
    async_client: Literal[True],
    mode: Mode | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    **kwargs: Any,
) -> AsyncInstructor: ...


@overload
def from_provider(
    model: str,
    *,
    async_client: bool,
    mode: Mode | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    **kwargs: Any,
) -> Instructor | AsyncInstructor: ...


def from_provider(
    model: str,
    *,
    async_client: bool = False,
    mode: Mode | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    **kwargs: Any,
) -> Instructor | AsyncInstructor:
    """`instructor.from_provider`, with a client that remembers what the model answered.

    Args:
        model: ``"provider/model"``, as in ``"openai/gpt-4.1-mini"``.
        async_client: True for an `AsyncInstructor`.
        mode: how instructor asks for structure; None: its choice for the provider.
        namespace: entries are never seen from another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for all entries of this client, for `invalidate`.
        stale_while_revalidate: how long after its expiry an answer is served at once, while a new
            one is fetched behind the caller: seconds or a `timedelta`. Default:
            ``LLMCACHE["STALE_WHILE_REVALIDATE"]``.
        stale_if_error: how long after its expiry an answer is served when the provider fails (429,
            5xx, timeout, no connection). Default: ``LLMCACHE["STALE_IF_ERROR"]``.
        **kwargs: what `instructor.from_provider` takes: ``api_key``, ``base_url``, ...

    Returns:
        instructor's own client. Its calls take ``cache_mode``, ``cache_ttl``, ``cache_tags``,
        ``cache_namespace``, ``cache_stale_while_revalidate`` and ``cache_stale_if_error`` besides.

    Raises:
        InvalidArgument: when an argument of llmcache cannot be meant.
    """
    policy = Policy().changed(
        namespace=namespace,
        ttl=ttl,
        tags=tags,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    _refuse_cache(kwargs)
    # Through Any: instructor's overloads know no `bool`, and no `mode`.
    make: Any = instructor.from_provider
    return _wrapped(Origin(make(model, async_client=async_client, mode=mode, **kwargs), policy))


def wrap(
    client: Client,
    *,
    model: str | None = None,
    endpoint: str | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
) -> Client:
    """A copy of any client of instructor that remembers; the given one stays as it is.

    Args:
        client: an `Instructor` or `AsyncInstructor`. One that is wrapped is wrapped anew.
        model: the model for calls that name none.
        endpoint: what tells where the client sends its requests, in any words. Needed only where
            llmcache cannot see it: calls then have the outcome ``bypass``, and the reason says so.
        namespace, ttl, tags, stale_while_revalidate, stale_if_error: as in `from_provider`.

    Returns:
        A client of the same class.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    if not isinstance(client, Instructor):
        raise InvalidArgumentType(
            f"wrap() takes a client of instructor, not a {type(client).__name__}. Make one with "
            "instructor.from_openai(client), instructor.from_litellm(completion), ..."
        )
    _refuse_cache(client.kwargs)
    policy = Policy().changed(
        namespace=namespace,
        ttl=ttl,
        tags=tags,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    told = None if endpoint is None else str(endpoint)
    return cast(Client, _wrapped(Origin(_unwrapped(client), policy, model, told)))


def key_for(client: Instructor, *, response_model: Any, **arguments: Any) -> str:
    """The key of the call ``client.create(response_model=..., messages=..., ...)``.

    Nobody is asked: neither a tier nor the model.

    Args:
        client: a client that `from_provider` or `wrap` made.
        response_model: the class of the answer.
        **arguments: the other arguments of the call.

    Returns:
        64 hex digits.

    Raises:
        UncacheableRequest: when such a call has no key; the message says why.
        InvalidArgument: when the client is not one of llmcache, or an argument cannot be meant.
    """
    request = _request_of("key_for", client, response_model, arguments)
    if request.bypass:
        raise UncacheableRequest("request", request.bypass)
    return request.call.key


def explain(client: Instructor, *, response_model: Any, **arguments: Any) -> Explanation:
    """Why the call ``client.create(response_model=..., messages=..., ...)`` would hit or miss.

    The tiers are asked, without counting a hit; the model is not. Only entries of the call's own
    namespace are looked at.

    Args:
        client: a client that `from_provider` or `wrap` made.
        response_model: the class of the answer.
        **arguments: the other arguments of the call.

    Returns:
        An `Explanation`: ``outcome``, ``tier``, ``reason``, ``key``, the digests of its ``parts``,
        and for a miss the ``nearest`` stored entry with what differs. ``print()`` shows all of it.

    Raises:
        InvalidArgument: when the client is not one of llmcache, or an argument cannot be meant.
    """
    return _explaining("explain", client, response_model, arguments)()


async def aexplain(client: Instructor, *, response_model: Any, **arguments: Any) -> Explanation:
    """`explain` for a coroutine: the same arguments; the event loop goes on meanwhile."""
    work = _explaining("aexplain", client, response_model, arguments)
    return await placement.arun_to_the_end(work)


def _explaining(
    function: str, client: Instructor, response_model: Any, arguments: dict[str, Any]
) -> Callable[[], Explanation]:
    request = _request_of(function, client, response_model, arguments)
    origin, call, shape, canonical = request.origin, request.call, request.shape, request.canonical
    subject = Subject(
        name="this call",
        key=call.key,
        namespace=call.namespace,
        provider=str(origin.client.provider.value),
        endpoint=origin.endpoint_name if canonical else "",
        model=call.model,
        mode=str(origin.client.mode.value),
        response_model=shape.path if shape else "",
        digests=canonical.digests() if canonical else {},
        describe=request.describe,
    )
    return partial(
        explain_call,
        subject,
        policy=request.policy,
        bypass=request.bypass,
        restore=request.restore,
    )


def _request_of(
    function: str, client: Instructor, response_model: Any, arguments: dict[str, Any]
) -> ClientRequest:
    create_fn = getattr(client, "create_fn", None)
    if not isinstance(create_fn, CachedCreate):
        raise InvalidArgumentType(
            f"{function}() takes a client that llmcache.from_provider() or llmcache.wrap() made."
        )
    # The defaults of `Instructor.create`.
    call = client.handle_kwargs({"context": None, "strict": True, **arguments})
    return read_request(create_fn.origin, response_model, call)


def _wrapped(origin: Origin) -> Instructor:
    client = origin.client
    # Not by copy.copy: `Instructor.__getattr__` recurses on an object without attributes.
    twin: Any = object.__new__(type(client))
    vars(twin).update(vars(client), hooks=client.hooks.copy())
    is_async = isinstance(client, AsyncInstructor)
    twin.create_fn = AsyncCachedCreate(origin) if is_async else CachedCreate(origin)
    vars(twin).update(checked_once(twin))
    remember(origin)
    if "responses" in vars(client):
        twin.responses = type(vars(client)["responses"])(client=twin)
    return cast(Instructor, twin)


def _unwrapped(client: Instructor) -> Instructor:
    create_fn = client.create_fn
    return create_fn.origin.client if isinstance(create_fn, CachedCreate) else client


def _refuse_cache(kwargs: dict[str, Any]) -> None:
    if kwargs.get("cache") is not None:
        raise InvalidArgument(
            "The client has a cache of instructor already. With both, an invalidation would leave "
            "the answers in the other one. Leave out cache=..."
        )
