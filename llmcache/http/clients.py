"""HTTP clients and transports that remember, and clients of SDKs with one inside."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial, update_wrapper
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar, Unpack, cast

from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.http.door import Door
from llmcache.http.graft import grafted, put_between
from llmcache.http.replay import remember
from llmcache.http.transport import AsyncTransport, Transport
from llmcache.policy import READERS, TTL, Policy, Seconds, read_exclude

if TYPE_CHECKING:
    import httpx

Client = TypeVar("Client")

# The first of these that is installed is taken, where nobody says which: together, they serve the
# SDKs that take an HTTP client.
LIBRARIES: Final = ("httpx2", "httpx")
# As the SDKs of OpenAI and Anthropic make theirs.
MOST_CONNECTIONS: Final = 1000
MOST_KEPT_ALIVE: Final = 100
PACES: Final = ("at-once", "paced")
# How a call names its namespace.
NAMING: Final = 'llmcache.headers(namespace="...")'
# By which clients of SDKs make copies of themselves, with other options.
COPYING: Final = frozenset({"copy", "with_options"})


class HttpOptions(TypedDict, total=False):
    """What a client or a transport is told of the cache."""

    namespace: str
    ttl: TTL
    tags: Iterable[str]
    stale_while_revalidate: Seconds
    stale_if_error: Seconds
    exclude: Iterable[str]
    retries: int | None
    replay: Literal["at-once", "paced"]


def http_transport(inner: Any, **options: Unpack[HttpOptions]) -> Any:
    """A transport for an HTTP client, which answers from the store what it may.

    What is posted to the address of a model is cached; all else passes through `inner`.

    Args:
        inner: the transport that asks, of httpx or httpx2: ``httpx.HTTPTransport()``, or
            ``httpx.AsyncHTTPTransport()`` for an asynchronous client.
        namespace: entries are never seen from another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for all entries of this client, for `invalidate`.
        stale_while_revalidate: how long after its expiry an answer is served at once, while a new
            one is fetched behind the caller: seconds or a `timedelta`.
        stale_if_error: how long after its expiry an answer is served when the provider fails: in
            the last attempt, so `retries` has to be told.
        exclude: names of headers, and of fields of the body, that cannot change the answer. They
            are sent, and do not count in the key.
        retries: how often the SDK tries again, as in its ``max_retries``.
        replay: ``"at-once"``, or ``"paced"``: streams at the pace at which they came.

    Returns:
        What ``httpx.Client(transport=...)`` or ``httpx.AsyncClient(transport=...)`` takes.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    return _over(_read(options), inner)


def http_client(*, library: str = "", **options: Unpack[HttpOptions]) -> httpx.Client:
    """An HTTP client for an SDK: ``OpenAI(http_client=llmcache.http_client(ttl=3600))``.

    For one with a proxy or time-outs of its own, wrap it: ``llmcache.wrap(httpx.Client(...))``.

    Args:
        library: ``"httpx2"`` or ``"httpx"``. Default: the first of them that is installed.
        **options: as in `http_transport`.

    Returns:
        An ``httpx2.Client``, or an ``httpx.Client``, which follows redirects.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    return cast("httpx.Client", _between(_library(library), "Client", options))


def async_http_client(*, library: str = "", **options: Unpack[HttpOptions]) -> httpx.AsyncClient:
    """`http_client` for coroutines: ``AsyncOpenAI(http_client=llmcache.async_http_client())``.

    It takes the same arguments. Returns an ``httpx2.AsyncClient``, or an ``httpx.AsyncClient``.
    """
    return cast("httpx.AsyncClient", _between(_library(library), "AsyncClient", options))


def wrap_sdk(client: Client, **options: Unpack[HttpOptions]) -> Client:
    """A copy of the client of an SDK, or of an HTTP client, that remembers. See `llmcache.wrap`."""
    return _wrapped(client, _read(options))


def _wrapped(client: Client, door: Door) -> Client:
    retries = getattr(client, "max_retries", None) if door.retries is None else door.retries
    twin = grafted(client, partial(_over, replace(door, retries=retries, owner=client)))
    if twin is None:
        raise InvalidArgumentType(
            f"wrap() takes a client of instructor, of an SDK over httpx or httpx2, or an HTTP "
            f"client of these; in a {type(client).__name__}, there is none. Where an SDK takes an "
            "HTTP client, give it llmcache.http_client()."
        )
    if hasattr(client, "max_retries"):
        vars(twin).update({name: _copying(twin, name, door) for name in COPYING & {*dir(client)}})
    return twin


def _copying(twin: Any, name: str, door: Door) -> Callable[..., Any]:
    """The method of an SDK's client that copies it: the copy may try again another number of times.

    So it gets a transport of its own, but where it is given an HTTP client.
    """
    method = getattr(type(twin), name)

    def copied(**changes: Any) -> Any:
        copy = method(twin, **changes)
        return copy if changes.get("http_client") else _wrapped(copy, door)

    return update_wrapper(copied, method, assigned=("__name__", "__qualname__", "__doc__"))


def _read(options: HttpOptions) -> Door:
    """What was said, for a transport that is to be put in. Raises `InvalidArgument`."""
    if unknown := options.keys() - HttpOptions.__annotations__.keys():
        raise InvalidArgumentType(
            f"There is no argument {', '.join(sorted(unknown))}. There are: "
            f"{', '.join(HttpOptions.__annotations__)}."
        )
    retries, replay = options.get("retries"), options.get("replay", "at-once")
    if isinstance(retries, bool) or not isinstance(retries, int | None):
        raise InvalidArgumentType(f"retries is a whole number, or None; not {retries!r}.")
    if replay not in PACES:
        raise InvalidArgument(f"replay is one of {', '.join(map(repr, PACES))}; not {replay!r}.")
    policy: dict[str, Any] = {name: to for name, to in options.items() if name in READERS}
    names = read_exclude(options.get("exclude", ()))
    return Door(
        inner=None,
        policy=Policy(naming=NAMING).changed(**policy),
        exclude=names | {name.lower() for name in names},
        retries=retries,
        is_paced=replay == "paced",
    )


def _over(door: Door, inner: Any) -> Any:
    """A transport over `inner`; over what that is over, where it is one of ours."""
    if isinstance(inner, Transport | AsyncTransport):
        inner = inner.door.inner
    is_async = hasattr(inner, "handle_async_request")
    is_sync = hasattr(inner, "handle_request")
    if not (is_async or is_sync):
        raise InvalidArgumentType(
            f"It takes a transport of httpx or httpx2, as httpx.HTTPTransport(); not {inner!r}."
        )
    door = replace(door, inner=inner)
    if is_sync:
        remember(door)
    # (httpx's own for tests is both)
    return Both(door) if is_async and is_sync else (AsyncTransport if is_async else Transport)(door)


class Both(Transport, AsyncTransport):
    """Over a transport for synchronous and asynchronous clients."""


def _between(library: Any, name: str, options: HttpOptions) -> Any:
    """A new client, with a transport of ours between it and its own."""
    door = _read(options)
    limits = library.Limits(
        max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_KEPT_ALIVE
    )
    client = getattr(library, name)(follow_redirects=True, limits=limits)
    return put_between(client, partial(_over, door))


def _library(name: str) -> Any:
    if name and name not in LIBRARIES:
        raise InvalidArgument(f"library is one of {', '.join(LIBRARIES)}; not {name!r}.")
    installed = [each for each in LIBRARIES if name in {"", each} and find_spec(each)]
    if not installed:
        raise InvalidArgument(f"{name or 'Neither httpx2 nor httpx'} is not installed.")
    return importlib.import_module(installed[0])
