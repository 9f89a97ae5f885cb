"""What a call would do, without asking the model: its key, and why it would hit or miss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from instructor import Instructor

from llmcache.background import database
from llmcache.client.call.arguments import sent
from llmcache.client.call.request import ClientRequest, read_request
from llmcache.client.wrapping import origin_of
from llmcache.exceptions import UncacheableRequest
from llmcache.explanation.explain import Explanation


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
        raise UncacheableRequest("request", request.bypass.text, request.bypass.code)
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
    return _request_of("explain", client, response_model, arguments).explained()


async def aexplain(client: Instructor, *, response_model: Any, **arguments: Any) -> Explanation:
    """`explain` for a coroutine: the same arguments; the event loop goes on meanwhile."""
    request = _request_of("aexplain", client, response_model, arguments)
    return await database.arun_to_the_end(request.explained)


def _request_of(
    function: str, client: Instructor, response_model: Any, arguments: dict[str, Any]
) -> ClientRequest:
    # (a twin of the origin: to look at a call is not to make one in its namespace)
    origin = replace(origin_of(client, function))
    # The defaults of `Instructor.create`.
    call = client.handle_kwargs({"context": None, "strict": True, **arguments})
    # (what a validator writes into the context is not for the caller)
    call, _ = sent(call, call.keys() - {"context"})
    return read_request(origin, response_model, call)
