"""Reading what an HTTP client is about to post, as the flow is to see it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from llmcache.exceptions import InvalidArgument
from llmcache.flow.replay import HTTP
from llmcache.http.door import Door
from llmcache.http.key import endpoint_of, read_body
from llmcache.http.request import HttpRequest
from llmcache.http.wishes import HEADER, wishes_of
from llmcache.outcomes import Call
from llmcache.policy import UNSET, overridden
from llmcache.providers.dialects import dialect_of, provider_at
from llmcache.providers.world import searches, what_looks, why_stateful
from llmcache.reasons import Reason, ReasonCode


def read_request(door: Door, given: Any, *, is_async: bool) -> HttpRequest:
    """What is posted, as the flow sees it. Raises `InvalidArgument` where no call may be like that.

    Whatever else goes wrong makes it a bypass, with the reason.
    """
    token = given.headers.get(HEADER)
    wishes = {} if token is None else wishes_of(token)
    policy = overridden(
        door.policy.changed(**wishes) if wishes else door.policy,
        names_namespace=bool(wishes) and "namespace" in (wishes or ()),
    )
    request = HttpRequest(
        door, without_wishes(given), is_async, policy=policy, call=Call(provider=HTTP)
    )
    try:
        why = _why_unread(request) or (ReasonCode.UNKNOWN_WISHES() if wishes is None else None)
        request.call.namespace = policy.namespace_name
        request.bypass = why or _why_not_kept(request)
        if request.bypass is None:
            _give_key(request)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - law A: the provider is asked all the same
        request.refuse_key(error, HTTP)
    return request


def without_wishes(given: Any) -> Any:
    """The request as it is sent: the one that is given stays as it is, for the next redirect."""
    if HEADER not in given.headers:
        return given
    sent = object.__new__(type(given))
    vars(sent).update(vars(given), headers=given.headers.copy())
    del sent.headers[HEADER]
    return sent


def _why_unread(request: HttpRequest) -> Reason | None:
    """Why nobody can tell what is asked; None where it was read into `request`."""
    url = request.sent.url
    path = unquote(url.path)
    dialect = dialect_of(path)
    if dialect is None:
        return ReasonCode.UNKNOWN_ADDRESS(path=path)
    body = read_body(request.sent)
    if not any(name in body for name in dialect.conversation):
        return ReasonCode.UNREADABLE_BODY()
    request.dialect, request.body = dialect, body
    request.call.model = dialect.model_of(path, body)
    request.call.provider = provider_at(url.host, dialect)
    return None


def _why_not_kept(request: HttpRequest) -> Reason | None:
    """Why the answer does not follow from what is asked; None where it does."""
    body, call = request.body, request.call
    if why := why_stateful(body):
        call.spoils = True
        return why
    looking = "the model" if searches(call.model) else what_looks(body)
    if not looking or request.policy.ttl is not UNSET:
        return None
    call.needs_ttl = True
    return ReasonCode.LOOKS_AT_THE_WORLD(tool=looking)


def _give_key(request: HttpRequest) -> None:
    request.endpoint = endpoint_of(request.sent, request.door)
    request.canonical = request.canonical_now()
    request.call.key = request.canonical.key
    if not request.is_async:  # (whose connections belong to an event loop)
        request.door.remember(request.call.namespace, request.endpoint, request.sent)
