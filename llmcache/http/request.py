"""One request of an HTTP client, as the flow sees it: its key, and how its answer is kept."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote

from llmcache.codec.answers import StoredAnswer
from llmcache.exceptions import InvalidArgument
from llmcache.flow.replay import HTTP
from llmcache.flow.request import BaseRequest
from llmcache.flow.steps import NotStorable
from llmcache.flow.stream_drivers import Recording
from llmcache.http import judgement
from llmcache.http.response import OK, Head, Recorded, Whole, item_of, restored_stream
from llmcache.http.wishes import HEADER, wishes_of
from llmcache.keys.request import (
    SAMPLE,
    CanonicalRequest,
    canonical_context,
    canonical_parameters,
    canonical_part,
    common_parts,
)
from llmcache.outcomes import Call
from llmcache.policy import UNSET, Policy, overridden
from llmcache.providers import pricing
from llmcache.providers.addresses import address_in_words
from llmcache.providers.arguments import UNHEARD
from llmcache.providers.dialects import Dialect, Kind, dialect_of, provider_at
from llmcache.providers.headers import counted_on_client, in_words
from llmcache.providers.world import searches, what_looks, why_stateful
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Found, describe

# Where a response has the status of an error (RFC 9110, section 15).
FIRST_ERROR: Final = 400
# In which attempt of an SDK a request is, counted from 0: those that are made by one generator say.
ATTEMPT: Final = "x-stainless-retry-count"
# So many endpoints of one client are remembered.
MOST_SEEN: Final = 100
# The parts of the key that such a request does not have.
NO_SCHEMA: Final = canonical_part("schema", None)
NO_CONTEXT: Final = canonical_context(None)
NOT_STRICT: Final = canonical_part("strict", None)
# So many bytes of a stream's end are remembered, to tell whether it was whole when it was left.
TAIL: Final = 400


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Door:
    """What was said of an HTTP client when it was made.

    `inner` is the transport that asks. `retries`: how often the SDK tries again, so that a stale
    answer is served where it would give up; None: it is not known, and none is. `own_headers` are
    those that all requests of the client have; None: they are not known apart, and all of a request
    count like them. `is_paced`: streams are replayed at the pace at which they came.
    """

    inner: Any
    policy: Policy
    exclude: frozenset[str] = frozenset()
    retries: int | None = None
    own_headers: Mapping[str, Any] | None = None
    is_paced: bool = False
    # The client of an SDK that owns the connections, and is to live as long.
    owner: Any = field(default=None, repr=False)
    # What was asked last, by namespace and endpoint: with credentials, and kept nowhere else.
    seen: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)

    def remember(self, namespace: str, endpoint: str, sent: Any) -> None:
        if len(self.seen) >= MOST_SEEN:
            self.seen.clear()
        self.seen[namespace, endpoint] = sent


class StatusError(Exception):
    """The provider has answered with the status of an error, and will not be asked again."""

    def __init__(self, answer: Whole) -> None:
        super().__init__(f"status {answer.head.status}")
        self.answer = answer
        self.status_code = answer.head.status


@dataclass(slots=True)
class HttpRequest(BaseRequest):
    """One request; `sent` is the HTTP client's own, and `body` what its JSON says."""

    door: Door
    sent: Any
    is_async: bool
    dialect: Dialect | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    #: The end of the stream so far.
    tail: bytes = b""
    #: When its head came (`time.perf_counter`).
    headed: float = 0.0
    #: Whether the caller has left the stream.
    is_left: bool = False

    @property
    def mode(self) -> str:
        return HTTP

    @property
    def is_stream(self) -> bool:
        return self.dialect is not None and self.dialect.is_stream(self.body)

    @property
    def asks(self) -> tuple[Callable[[], Any], bool, bool]:
        if self.is_stream:
            return (self.aask_stream if self.is_async else self.ask_stream), True, self.is_async
        return (self.aask if self.is_async else self.ask), False, self.is_async

    @property
    def is_last_attempt(self) -> bool:
        """Whether the SDK will give up when the provider fails now."""
        attempt = str(self.sent.headers.get(ATTEMPT, "0"))
        retries = self.door.retries
        return retries is not None and attempt.isdecimal() and int(attempt) >= retries

    def ask(self) -> Whole:
        self._begin()
        response = self.door.inner.handle_request(self.sent)
        try:
            return self._whole(response, b"".join(response.stream))
        finally:
            response.close()

    async def aask(self) -> Whole:
        self._begin()
        response = await self.door.inner.handle_async_request(self.sent)
        try:
            return self._whole(response, b"".join([chunk async for chunk in response.stream]))
        finally:
            await response.aclose()

    def ask_stream(self) -> Generator[Any, None, None]:
        """The head, then the chunks as they come."""
        self._begin()
        response = self.door.inner.handle_request(self.sent)
        try:
            if response.status_code >= FIRST_ERROR:
                answer = self._whole(response, b"".join(response.stream))
                yield from (answer.head, answer.body)
                return
            yield self._head(response)
            for chunk in response.iter_bytes():
                yield chunk
                if self.is_left:
                    return
        finally:
            response.close()

    async def aask_stream(self) -> AsyncGenerator[Any, None]:
        """`ask_stream` for a coroutine."""
        self._begin()
        response = await self.door.inner.handle_async_request(self.sent)
        try:
            if response.status_code >= FIRST_ERROR:
                body = b"".join([chunk async for chunk in response.stream])
                answer = self._whole(response, body)
                yield answer.head
                yield answer.body
                return
            yield self._head(response)
            async for chunk in response.aiter_bytes():
                yield chunk
                if self.is_left:
                    return
        finally:
            await response.aclose()

    def _begin(self) -> None:
        # Where the SDK will try again, nothing is served in the place of the error.
        self.begun = not self.is_last_attempt

    def _whole(self, response: Any, body: bytes) -> Whole:
        answer = Whole(_head_of(response), body, dict(response.extensions))
        answer.extensions.pop("network_stream", None)
        if response.status_code >= FIRST_ERROR and not self.begun:
            raise StatusError(answer)
        return answer

    def _head(self, response: Any) -> Head:
        self.headed = time.perf_counter()
        head = _head_of(response)
        # (the chunks are handed on decoded)
        head.headers = [pair for pair in head.headers if pair[0].lower() not in DECODED]
        return head

    def is_whole_by_now(self) -> bool:
        """Whether the stream has told its end."""
        last = self.dialect.last if self.dialect else b""
        return bool(last) and last in self.tail

    def copied(self, **changes: Any) -> HttpRequest:
        # (the body is bytes, which nobody changes)
        return replace(self, tail=b"", is_left=False, **changes)

    def canonical_now(self) -> CanonicalRequest:
        return self.canonical or canonical_of(self)

    def why_changed(self) -> Reason | None:
        return None

    def before_asking(self) -> None:
        self.described = self.describe()

    def describe(self) -> bytes | None:
        conversation, parameters = _parts(self)
        told = {"messages": conversation, "parameters": parameters}
        return describe({**told, "context": None, "strict": None})

    def restore(self, found: Found) -> Any:
        stored = StoredAnswer.unpack(found.body)
        return restored_stream(stored) if self.is_stream else Whole.restored(stored)

    def bill(self, answer: Any, seconds: float) -> None:
        call = self.call
        self.receipt = call.spent = pricing.receipt(
            self._usage_of(answer),
            provider=call.provider,
            model=call.model,
            seconds=seconds,
            writes=self.dialect is None or self.dialect.kind is Kind.ANSWER,
        )

    def _usage_of(self, answer: Whole | Recording | None) -> Any:
        """What an answer says of its tokens: nothing, where a stream was not recorded."""
        if isinstance(answer, Whole):
            return judgement.read_json(self.decoded(answer)) or {}
        with suppress(NotStorable):
            return judgement.usage_of(Recorded.of(answer.items()).body) if answer else {}
        return {}

    def encoded(self, answer: Any) -> StoredAnswer:
        if answer.head.status != OK:
            raise NotStorable(ReasonCode.STATUS(status=answer.head.status))
        content = self.decoded(answer)
        told = judgement.judged(self.dialect, self.body, content)
        self.admit(told, told)
        stored: StoredAnswer = answer.stored(content)
        return stored

    def decoded(self, answer: Whole) -> bytes:
        """The body, as it was before it was compressed for its way."""
        library = library_of(self.sent)
        head = answer.head
        response = library.Response(head.status, headers=head.headers, content=answer.body)
        return bytes(response.content)

    def encoded_item(self, item: Any) -> bytes:
        if isinstance(item, Head):
            if item.status != OK:
                raise NotStorable(ReasonCode.STATUS(status=item.status))
            return item.to_json()
        self.tail = (self.tail + item)[-TAIL:]
        return item_of(item, time.perf_counter() - self.headed)

    def recorded(self, recording: Recording) -> StoredAnswer:
        recorded = Recorded.of(recording.items())
        told = judgement.judged_stream(self.dialect, recorded.body)
        self.admit(told, told)
        return recorded.stored(json.dumps(told).encode())


# What tells how the bytes of a stream were coded on their way.
DECODED: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def _head_of(response: Any) -> Head:
    return Head(response.status_code, list(response.headers.multi_items()))


def library_of(request: Any) -> Any:
    """httpx or httpx2: the library that a request is of."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def read_request(door: Door, sent: Any, *, is_async: bool) -> HttpRequest:
    """What is posted, as the flow sees it. Raises `InvalidArgument` for wishes that are off.

    Whatever else goes wrong makes it a bypass, with the reason.
    """
    wishes, unknown = _taken_wishes(sent)
    policy = door.policy.changed(**wishes) if wishes else door.policy
    policy = overridden(policy, names_namespace="namespace" in wishes)
    request = HttpRequest(door, sent, is_async, policy=policy, call=Call(provider=HTTP))
    try:
        request.call.namespace = policy.namespace_name
        path = unquote(sent.url.path)
        request.dialect = dialect_of(path)
        if unknown:
            request.bypass = ReasonCode.UNKNOWN_WISHES()
        elif request.dialect is None:
            request.bypass = ReasonCode.UNKNOWN_ADDRESS(path=path)
        else:
            _give_key(request, request.dialect, path)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - law A: the provider is asked all the same
        request.refuse_key(error, HTTP)
    return request


def _taken_wishes(sent: Any) -> tuple[dict[str, Any], bool]:
    """What `llmcache.headers` was told; and whether there is a token that is not known here."""
    token = sent.headers.get(HEADER)
    if token is None:
        return {}, False
    del sent.headers[HEADER]
    wishes = wishes_of(token)
    return wishes or {}, wishes is None


def _give_key(request: HttpRequest, dialect: Dialect, path: str) -> None:
    body = _read_body(request.sent)
    if body is None:
        request.bypass = ReasonCode.UNREADABLE_BODY()
        return
    call = request.call
    request.body, call.model = body, dialect.model_of(path, body)
    call.provider = provider_at(request.sent.url.host, dialect)
    request.bypass = _why_not_kept(request)
    if request.bypass is None:
        request.endpoint = _endpoint(request)
        request.canonical = canonical_of(request)
        call.key = request.canonical.key
        request.door.remember(call.namespace, request.endpoint, request.sent)


def _read_body(sent: Any) -> dict[str, Any] | None:
    try:
        body = json.loads(sent.content, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        return None
    except Exception as error:
        # (`RequestNotRead` of httpx and of httpx2: a body that is made as it is sent)
        if type(error).__name__ != "RequestNotRead":
            raise
        return None
    return body if isinstance(body, dict) else None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


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


def _endpoint(request: HttpRequest) -> str:
    """The address, and the headers that choose the answer."""
    url = request.sent.url
    return address_in_words(str(url)) + in_words(_headers(request))


def _headers(request: HttpRequest) -> dict[str, str]:
    sent, own = request.sent, request.door.own_headers
    host = sent.url.netloc.decode("ascii")
    pairs = [
        (name, value)
        for name, value in sent.headers.multi_items()
        if name not in request.door.exclude and (name, value) != ("host", host)
    ]
    if own is None:
        return counted_on_client([pairs])
    names = {name.lower() for name in own}
    of_client = [pair for pair in pairs if pair[0] in names]
    return counted_on_client([of_client], [pair for pair in pairs if pair[0] not in names])


def _parts(request: HttpRequest) -> tuple[Any, dict[str, Any]]:
    """What of the body is the conversation, and the parameters."""
    dialect, body = request.dialect, request.body
    names = dialect.conversation if dialect else ()
    conversation = {name: body[name] for name in names if name in body}
    not_counted = {*names, "model", *UNHEARD, *request.door.exclude}
    parameters = {name: value for name, value in body.items() if name not in not_counted}
    if request.policy.sample:
        parameters[SAMPLE] = request.policy.sample
    # (a list of messages, where it stands alone, as the other ways in have it)
    alone = conversation.keys() == {"messages"}
    return conversation["messages"] if alone else conversation, parameters


def canonical_of(request: HttpRequest) -> CanonicalRequest:
    """The request with this body, in canonical form."""
    call = request.call
    conversation, parameters = _parts(request)
    schemas = request.dialect.schemas & parameters.keys() if request.dialect else frozenset()
    # In a schema, the order of the fields is the one in which the model fills them in.
    ordered = [canonical_context({name: parameters[name]}) for name in sorted(schemas)]
    common = common_parts(
        call.namespace, call.provider, request.endpoint, call.model, HTTP, NO_SCHEMA
    )
    return common.request(
        canonical_part("messages", conversation),
        canonical_parameters(parameters) + b"".join(ordered),
        NO_CONTEXT,
        NOT_STRICT,
    )
