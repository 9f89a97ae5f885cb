"""`wrap`: picks the way in for a client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast

from llmcache.exceptions import InvalidArgument
from llmcache.policy import TTL, UNSET, Seconds, Unset

Client = TypeVar("Client")


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
    exclude: Iterable[str] = (),
    retries: int | None = None,
    replay: Literal["at-once", "paced"] = "at-once",
) -> Client:
    """A copy of a client that remembers what models answered; the given one stays as it is.

    Of a client of instructor, the answers are kept as instructor gives them. Of the client of an
    SDK (``OpenAI()``, ``AsyncAnthropic()``, ``genai.Client()``, ...) and of an HTTP client of httpx
    or httpx2, what the provider sends is kept, byte for byte. Such a copy shares its connections
    with the given client, which therefore lives as long: closing either closes them.

    Args:
        client: an `Instructor` or `AsyncInstructor`, the client of an SDK, or an HTTP client. One
            of instructor that is wrapped is wrapped anew.
        model: of a client of instructor, the model for calls that name none.
        endpoint: of a client of instructor, what tells where it sends its requests, in any words.
            Needed only where llmcache cannot see it: calls then have the outcome ``bypass``, and
            the reason says so.
        namespace: entries are never seen from another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for all entries of this client, for `invalidate`.
        stale_while_revalidate: how long after its expiry an answer is served at once, while a new
            one is fetched behind the caller: seconds or a `timedelta`.
        stale_if_error: how long after its expiry an answer is served when the provider fails.
        exclude: names of arguments, of headers and of fields of the body that cannot change the
            answer. They are sent, and do not count in the key.
        retries: of an SDK, how often it tries again; a stale answer is served where it would give
            up. Default: its ``max_retries``, where it has one; else none is served.
        replay: of an SDK, ``"paced"`` for streams at the pace at which they came.

    Returns:
        A client of the same class.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    told: dict[str, Any] = {
        "namespace": namespace,
        "ttl": ttl,
        "tags": tags,
        "stale_while_revalidate": stale_while_revalidate,
        "stale_if_error": stale_if_error,
        "exclude": exclude,
    }
    if any(cls.__module__.partition(".")[0] == "instructor" for cls in type(client).__mro__):
        if retries is not None or replay != "at-once":
            raise InvalidArgument("retries and replay are for clients of SDKs, not of instructor.")
        from llmcache.client.wrapping import wrap_instructor

        of_instructor: Any = client
        return cast(Client, wrap_instructor(of_instructor, model, endpoint, **told))
    if model is not None or endpoint is not None:
        raise InvalidArgument("model and endpoint are for clients of instructor.")
    from llmcache.http.clients import wrap_sdk

    given: Any = {name: value for name, value in told.items() if value is not UNSET}
    return wrap_sdk(client, retries=retries, replay=replay, **given)
