"""One request of an HTTP client, as the flow sees it: how it is asked, and its answer kept."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llmcache.codec.answers import StoredAnswer
from llmcache.conf import settings
from llmcache.flow.replay import HTTP
from llmcache.flow.request import BaseRequest
from llmcache.flow.steps import NotRestorable, NotStorable
from llmcache.flow.stream_drivers import Recording
from llmcache.http import judgement
from llmcache.http.door import Door, library_of
from llmcache.http.key import canonical, parts_of
from llmcache.http.response import OK, Head, Recorded, Whole, item_of, restored_stream
from llmcache.keys.request import CanonicalRequest
from llmcache.providers import pricing
from llmcache.providers.addresses import without_secrets
from llmcache.providers.dialects import Dialect, Kind
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Found, describe

# Where a response has the status of an error (RFC 9110, section 15).
FIRST_ERROR: Final = 400
# In which attempt of an SDK a request is, counted from 0: those that are made by one generator say.
ATTEMPT: Final = "x-stainless-retry-count"
# What tells how the bytes of a stream were coded on their way.
DECODED: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
# So many bytes of a stream's end are remembered: what tells its end may come in two chunks.
TAIL: Final = 32


class StatusError(Exception):
    """The provider has answered with the status of an error, and will not be asked again."""

    def __init__(self, answer: Whole) -> None:
        super().__init__(f"status {answer.head.status}")
        self.answer = answer
        self.status_code = answer.head.status


@dataclass(slots=True)
class HttpRequest(BaseRequest):
    """One request; `sent` is the HTTP client's own, and `body` what its JSON says.

    Where no `dialect` is known, what comes back is passed on as it is: it may be of any kind.
    """

    door: Door
    sent: Any
    is_async: bool
    dialect: Dialect | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    #: With which status it was answered; 0: not yet.
    status: int = 0
    #: The provider's response, where it is a stream.
    live: Any = None
    #: The end of the stream so far, and whether it has told that it is the end.
    tail: bytes = b""
    has_ended: bool = False
    #: When its head came (`time.perf_counter`).
    headed: float = 0.0
    #: Whether the caller has left the stream.
    is_left: bool = False
    #: Whether the store had a part of what is asked for, and not all.
    is_partly_stored: bool = False

    @property
    def mode(self) -> str:
        return HTTP

    @property
    def wait_seconds(self) -> float:
        """As long as it would wait for the provider, where that is less."""
        read = self.sent.extensions.get("timeout", {}).get("read")
        return settings.wait_seconds if read is None else min(settings.wait_seconds, read)

    @property
    def is_one_call(self) -> bool:
        return True

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

    def ask(self) -> Any:
        """The answer as a `Whole`; the live response itself where nobody can read it."""
        response = self._begun(self.door.inner.handle_request)
        if self.dialect is None:
            return response
        try:
            return self._whole(response, b"".join(response.stream))
        finally:
            response.close()

    async def aask(self) -> Any:
        """`ask` for a coroutine."""
        response = await self._begun(self.door.inner.handle_async_request)
        if self.dialect is None:
            return response
        try:
            return self._whole(response, b"".join([chunk async for chunk in response.stream]))
        finally:
            await response.aclose()

    def ask_stream(self) -> Generator[Any, None, None]:
        """The head, then the chunks as they come."""
        response = self._begun(self.door.inner.handle_request)
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
        response = await self._begun(self.door.inner.handle_async_request)
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

    def _begun(self, handle: Callable[[Any], Any]) -> Any:
        # Where the SDK will try again, nothing is served in the place of the error.
        self.begun = not self.is_last_attempt
        return handle(self.sent)

    def _whole(self, response: Any, body: bytes) -> Whole:
        answer = Whole(self._head_of(response), body)
        if self.status >= FIRST_ERROR and not self.begun:
            raise StatusError(answer)
        return answer

    def _head(self, response: Any) -> Head:
        self.live, self.headed = response, time.perf_counter()
        head = self._head_of(response)
        # (the chunks are handed on decoded)
        head.headers = [pair for pair in head.headers if pair[0].lower() not in DECODED]
        return head

    def _head_of(self, response: Any) -> Head:
        self.status = response.status_code
        headers = list(response.headers.multi_items())
        return Head(self.status, headers, extensions=response.extensions)

    def copied(self, **changes: Any) -> HttpRequest:
        # (the body is bytes, which nobody changes)
        anew = {"status": 0, "live": None, "tail": b"", "has_ended": False, "is_left": False}
        return replace(self, **anew | changes)

    def canonical_now(self) -> CanonicalRequest:
        if self.canonical is not None:
            return self.canonical
        return canonical(self.call, self.endpoint, self.dialect, self._parts())

    def _parts(self) -> tuple[Any, dict[str, Any]]:
        return parts_of(self.dialect, self.body, self.door, self.policy.sample)

    def why_changed(self) -> Reason | None:
        return None

    def before_asking(self) -> None:
        self.described = self.describe()

    def describe(self) -> bytes | None:
        conversation, parameters = self._parts()
        told = {"messages": conversation, "parameters": without_secrets(parameters)}
        return describe({**told, "context": None, "strict": None})

    def restore(self, found: Found) -> Any:
        stored = StoredAnswer.unpack(found.body)
        return restored_stream(stored) if self.is_stream else Whole.restored(stored)

    def bill(self, answer: Any, seconds: float) -> None:
        call = self.call
        if self.status >= FIRST_ERROR:
            return  # (nobody has answered)
        self.receipt = call.spent = pricing.receipt(
            self._usage_of(answer),
            provider=call.provider,
            model=call.model,
            seconds=seconds,
            writes=self.dialect is None or self.dialect.kind is Kind.ANSWER,
        )

    def _usage_of(self, answer: Any) -> Any:
        """What an answer says of its tokens: nothing, where it was not read or recorded."""
        if isinstance(answer, Whole):
            return judgement.read_json(self.decoded(answer)) or {}
        with suppress(NotStorable):
            if isinstance(answer, Recording):
                return judgement.usage_of(Recorded.of(answer.items()).body)
        return {}

    def encoded(self, answer: Any) -> StoredAnswer:
        self.check_status()
        content = self.decoded(answer)
        told = judgement.judged(self.dialect, self.body, content)
        self.admit(told, told)
        stored: StoredAnswer = answer.stored(content)
        return stored

    def check_status(self) -> None:
        """What is made of the answer to the next attempt, or at another address, can be stored."""
        if self.status != OK:
            raise NotRestorable(ReasonCode.STATUS(status=self.status))

    def decoded(self, answer: Whole) -> bytes:
        """The body, as it was before it was compressed for its way."""
        library = library_of(self.sent)
        head = answer.head
        response = library.Response(head.status, headers=head.headers, content=answer.body)
        return bytes(response.content)

    def encoded_item(self, item: Any) -> bytes:
        if isinstance(item, Head):
            self.check_status()
            return item.to_json()
        seen, last = self.tail + item, self.dialect.last if self.dialect else b""
        self.has_ended = self.has_ended or (bool(last) and last in seen)
        self.tail = seen[-TAIL:]
        return item_of(item, time.perf_counter() - self.headed)

    def recorded(self, recording: Recording) -> StoredAnswer:
        recorded = Recorded.of(recording.items())
        told = judgement.judged_stream(self.dialect, recorded.body)
        self.admit(told, told)
        return recorded.stored(json.dumps(told).encode())
