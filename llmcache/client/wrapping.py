"""`from_provider`, and `wrap` of a client of instructor: clients that remember."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import Any, Final, Literal, TypeVar, cast, overload

import instructor
from instructor import AsyncInstructor, Instructor, Mode
from instructor.v2.dsl.response_list import ListResponse

from llmcache.client.call.arguments import left_out, refuse_mistyped
from llmcache.client.call.origin import Origin
from llmcache.client.call.request import read_request
from llmcache.client.lazy import made_at_first_use
from llmcache.client.registry import remember
from llmcache.client.shapes import known_model_shape
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.fairness import take_first_turn, take_turn
from llmcache.flow.stream_drivers import adrive_stream, drive_stream
from llmcache.policy import TTL, UNSET, Policy, Seconds, Unset

# Arguments of `instructor.from_provider` that hold no credentials. All others may.
NO_CREDENTIALS: Final = {
    *("api_version", "azure_endpoint", "base_url", "hooks", "max_retries", "timeout"),
}
# All that is known to be an argument of `create`. A later version of instructor may have more.
KNOWN: Final = {
    *("self", "messages", "response_model", "max_retries", "context", "strict", "hooks"),
    *("token_budget", "kwargs"),
}
DEFAULTS: Final = {"max_retries": 3, "context": None, "strict": True}

Client = TypeVar("Client", bound=Instructor)


class CachedCreate:
    """The `create_fn` of a wrapped client."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __call__(self, response_model: Any = None, **arguments: Any) -> Any:
        request = read_request(self.origin, response_model, arguments)
        if request.stream is None:
            return drive(request, request.ask)
        items = drive_stream(request, request.ask_stream)
        if not request.stream.last_only:
            return items
        # A stream of partial models is read to its end before the caller gets it.
        read = ListResponse(items)
        read._raw_response = request.completion  # noqa: SLF001 - so does instructor
        return read


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
    async_client: Literal[True],
    mode: Mode | None = None,
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] = (),
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    lazy: bool = False,
    exclude: Iterable[str] = (),
    **kwargs: Any,
) -> AsyncInstructor: ...


@overload
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
    lazy: bool = False,
    exclude: Iterable[str] = (),
    **kwargs: Any,
) -> Instructor: ...


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
    lazy: bool = False,
    exclude: Iterable[str] = (),
    **kwargs: Any,
) -> Instructor:
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
        lazy: True for a client that is made at its first use: only then is the SDK imported, and
            are its credentials looked for. What is wrong with them is raised by each use until one
            succeeds.
        exclude: names of arguments of calls that cannot change the answer, as in ``["metadata"]``.
            They are sent, and do not count in the key.
        **kwargs: what `instructor.from_provider` takes: ``api_key``, ``base_url``, ...

    Returns:
        instructor's own client. Its calls take ``cache_mode``, ``cache_ttl``, ``cache_tags``,
        ``cache_namespace``, ``cache_stale_while_revalidate``, ``cache_stale_if_error`` and
        ``cache_sample`` besides.

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
    excluded = left_out(exclude)
    of_environment = kwargs.keys() <= NO_CREDENTIALS and "@" not in str(kwargs.get("base_url"))
    make: Any = instructor.from_provider  # (whose overloads know no `bool`, and no `mode`)

    def origin() -> Origin:
        client = make(model, async_client=async_client, mode=mode, **kwargs)
        return Origin(client, policy, exclude=excluded, is_of_environment=of_environment)

    if not lazy:
        return _wrapped(origin())
    client = made_at_first_use(
        lambda client: _attributes(client, origin()), kwargs.get("hooks"), is_async=async_client
    )
    remember(client)
    return client


def wrap_instructor(
    client: Client,
    model: str | None,
    endpoint: str | None,
    *,
    exclude: Iterable[str],
    **told: Any,
) -> Client:
    """A copy of any client of instructor that remembers. See `llmcache.wrap`."""
    if not isinstance(client, Instructor):
        raise InvalidArgumentType(
            f"wrap() takes a client of instructor, not a {type(client).__name__}. Make one with "
            "instructor.from_openai(client), instructor.from_litellm(completion), ..."
        )
    _refuse_cache(dict(client.kwargs))
    policy = Policy().changed(**told)
    create_fn = client.create_fn
    origin = Origin(
        create_fn.origin.client if isinstance(create_fn, CachedCreate) else client,
        policy,
        model,
        str(endpoint) if endpoint else None,
        left_out(exclude),
    )
    return cast(Client, _wrapped(origin))


def _wrapped(origin: Origin) -> Instructor:
    # Not by copy.copy: `Instructor.__getattr__` recurses on an object without attributes.
    twin: Any = object.__new__(type(origin.client))
    vars(twin).update(_attributes(twin, origin))
    remember(twin)
    return cast(Instructor, twin)


def _attributes(twin: Instructor, origin: Origin) -> dict[str, Any]:
    """Those of the client of `origin`, but that `twin` asks through the cache."""
    client = origin.client
    create_fn = AsyncCachedCreate if isinstance(client, AsyncInstructor) else CachedCreate
    own = {"hooks": client.hooks.copy(), "create_fn": create_fn(origin), **checked_once(twin)}
    if "responses" in vars(client):
        own["responses"] = type(vars(client)["responses"])(client=twin)
    return vars(client) | own


def checked_once(client: Instructor) -> dict[str, Any]:
    """The method ``create`` of `client`, by its name, which does not look through a class again.

    It looks for asynchronous validators in the response model and in all models in that, before
    anything else: that takes longer than the rest of a hit, and leaves garbage behind. Where a
    class was looked through, what `create` does besides is done here.
    """
    is_async = isinstance(client, AsyncInstructor)
    own: Any = AsyncInstructor.create if is_async else Instructor.create
    # What a class of a project's own does with its arguments is not known.
    if type(client).create is not own or not KNOWN.issuperset(signature(own).parameters):
        return {}
    create = _past_the_search(client, client.create)

    @wraps(create)
    async def acreate(*args: Any, **kwargs: Any) -> Any:
        # Before anything else: of a thousand who begin at once, each would do it in this turn.
        await take_first_turn()
        return await create(*args, **kwargs)

    return {"create": acreate if is_async else create}


def _past_the_search(client: Instructor, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def create(*args: Any, **kwargs: Any) -> Any:
        shape = known_model_shape(kwargs.get("response_model"))
        is_checked = shape is not None and shape.is_checked and "messages" in kwargs
        if args or not is_checked or not KNOWN.isdisjoint(client.kwargs):
            return method(*args, **kwargs)
        arguments = {**DEFAULTS, **client.kwargs, **kwargs}
        hooks = arguments.get("hooks")
        arguments["hooks"] = client.hooks if hooks is None else client.hooks + hooks
        if "token_budget" in arguments and arguments["token_budget"] is None:
            del arguments["token_budget"]
        return client.create_fn(**arguments)

    return create


def _refuse_cache(kwargs: dict[str, Any]) -> None:
    if kwargs.get("cache") is not None:
        raise InvalidArgument(
            "The client has a cache of instructor already. With both, an invalidation would leave "
            "the answers in the other one. Leave out cache=..."
        )
    refuse_mistyped(kwargs, list(kwargs))


def origin_of(client: Any, function: str) -> Origin:
    """Where the calls of `client` come from. Raises `InvalidArgument` where that is not ours."""
    create_fn = getattr(client, "create_fn", None)
    if isinstance(create_fn, CachedCreate):
        return create_fn.origin
    raise InvalidArgumentType(
        f"{function}() takes a client that llmcache.from_provider() or llmcache.wrap() made."
    )


def mode_named(name: str) -> Mode:
    """The mode of instructor with this name, as in ``"TOOLS"``. Raises `InvalidArgument`."""
    try:
        return Mode[name.upper()]
    except KeyError:
        names = ", ".join(Mode.__members__)
        raise InvalidArgument(f"{name!r} is no mode of instructor. There are: {names}.") from None
