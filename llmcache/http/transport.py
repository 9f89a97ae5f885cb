"""Between an HTTP client and the network: a transport that answers from the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, Final, Self

from llmcache.exceptions import CacheMiss, InvalidArgument
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.fairness import take_turn
from llmcache.flow.stream_drivers import aclose, adrive_stream, drive_stream
from llmcache.http.door import Door, library_of
from llmcache.http.embeddings import texts_of
from llmcache.http.reading import read_request, without_wishes
from llmcache.http.request import HttpRequest, StatusError
from llmcache.http.response import Head, Headers, Whole
from llmcache.outcomes import Outcome, is_inside_one_call

# (RFC 9211, section 2.2)
STATUS_HEADER: Final = "cache-status"
PARTIAL: Final = "partial"
FORWARDED: Final = {Outcome.MISS: "uri-miss", Outcome.RELOAD: "request", Outcome.BYPASS: "bypass"}
# What SDKs that Stainless has made send with each request.
STAINLESS: Final = "x-stainless-"
# The status where nothing is stored, and nobody may be asked (RFC 9111, section 5.2.1.7).
NO_ANSWER: Final = 504


class Transport:
    """A transport of httpx or httpx2, for synchronous clients. See `http_transport`."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def handle_request(self, request: Any) -> Any:
        if not _is_ours(request):
            return self.door.inner.handle_request(without_wishes(request))
        try:
            return self._answered(read_request(self.door, request, is_async=False))
        except (CacheMiss, InvalidArgument) as error:
            return _raised(request, error)

    def _answered(self, asked: HttpRequest) -> Any:
        try:
            if texts := texts_of(asked):
                return _response_of(asked, texts.answer())
            if not asked.is_stream:
                return _response_of(asked, drive(asked, asked.ask))
            items = drive_stream(asked, asked.ask_stream)
            return _streaming(asked, next(items), items)
        except StatusError as error:
            return _response_of(asked, error.answer)

    def close(self) -> None:
        self.door.inner.close()

    def __enter__(self) -> Self:
        self.door.inner.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.door.inner.__exit__(*raised)


class AsyncTransport:
    """A transport of httpx or httpx2, for asynchronous clients. See `http_transport`."""

    def __init__(self, door: Door) -> None:
        self.door = door

    async def handle_async_request(self, request: Any) -> Any:
        if not _is_ours(request) or not _has_loop():
            return await self.door.inner.handle_async_request(without_wishes(request))
        await take_turn()
        try:
            return await self._aanswered(read_request(self.door, request, is_async=True))
        except (CacheMiss, InvalidArgument) as error:
            return _raised(request, error)

    async def _aanswered(self, asked: HttpRequest) -> Any:
        try:
            if texts := texts_of(asked):
                return _response_of(asked, await texts.aanswer())
            if not asked.is_stream:
                return _response_of(asked, await adrive(asked, asked.aask))
            items = adrive_stream(asked, asked.aask_stream)
            return _streaming(asked, await anext(items), items)
        except StatusError as error:
            return _response_of(asked, error.answer)

    async def aclose(self) -> None:
        await self.door.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.door.inner.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.door.inner.__aexit__(*raised)


def _is_ours(request: Any) -> bool:
    """Whether it is for a model to answer, and nobody keeps the answer who has asked for it."""
    return request.method == "POST" and not is_inside_one_call()


def _has_loop() -> bool:
    """Whether it is asyncio that runs. (httpx goes with trio, too.)"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _raised(request: Any, error: Exception) -> Any:
    """Raise `error`; where the SDK would take it for a broken connection, its response does.

    SDKs that Stainless has made ask again after whatever an HTTP client raises, and then raise an
    error of their own. What comes of asking a response for its status, they let through.
    """
    if not any(name.startswith(STAINLESS) for name in request.headers):
        raise error
    response = _raising_class(library_of(request))(NO_ANSWER, content=b"")
    response.error = error
    return response


@lru_cache
def _raising_class(library: Any) -> Any:
    class Raising(library.Response):  # type: ignore[misc]
        error: Exception

        def raise_for_status(self) -> Any:
            raise self.error

        @property
        def is_success(self) -> bool:
            raise self.error

    return Raising


def _response_of(asked: HttpRequest, answer: Any) -> Any:
    library = library_of(asked.sent)
    if not isinstance(answer, Whole):
        answer.headers = library.Headers(_headers_of(asked, answer.headers.multi_items()))
        return answer
    stream = library.ByteStream(answer.body)
    return _response(asked, answer.head, stream)


def _streaming(asked: HttpRequest, head: Head, items: Any) -> Any:
    classes = _stream_classes(library_of(asked.sent))
    return _response(asked, head, classes[asked.is_async](asked, head, items))


def _response(asked: HttpRequest, head: Head, stream: Any) -> Any:
    return library_of(asked.sent).Response(
        head.status,
        headers=_headers_of(asked, head.headers),
        stream=stream,
        extensions=head.extensions,
    )


def _headers_of(asked: HttpRequest, headers: Headers) -> Headers:
    return [*headers, (STATUS_HEADER, _cache_status(asked))]


def _cache_status(asked: HttpRequest) -> str:
    """How the call was answered, in the words of RFC 9211; without its key."""
    call = asked.call
    forwarded = PARTIAL if asked.is_partly_stored else FORWARDED.get(call.outcome)
    if forwarded is not None:
        return f"llmcache; fwd={forwarded}{'; stored' if call.stored else ''}"
    ttl = "" if call.expires is None else f"; ttl={round(call.expires - time.time())}"
    return f"llmcache; hit{ttl}"


@lru_cache
def _stream_classes(library: Any) -> tuple[type, type]:
    """The streams of httpx, or of httpx2: the synchronous one, and the asynchronous one."""

    class Stream(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, asked: HttpRequest, head: Head, items: Any) -> None:
            self._asked, self._items, self._pace = asked, items, _Pace(asked.door, head)

        def __iter__(self) -> Iterator[bytes]:
            for number, chunk in enumerate(self._items):
                if seconds := self._pace.seconds_until(number):
                    time.sleep(seconds)
                yield chunk

        def close(self) -> None:
            self._asked.is_left = True
            if self._items.gi_running:  # (another thread reads it, and finds it closed)
                self._asked.live.close()
                return
            if self._asked.has_ended:
                for _ in self._items:  # (it is stored then)
                    pass
            self._items.close()

    class AsyncStream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, asked: HttpRequest, head: Head, items: Any) -> None:
            self._asked, self._items, self._pace = asked, items, _Pace(asked.door, head)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            number = 0
            async for chunk in self._items:
                if seconds := self._pace.seconds_until(number):
                    await asyncio.sleep(seconds)
                number += 1
                yield chunk

        async def aclose(self) -> None:
            self._asked.is_left = True
            if self._items.ag_running:
                await self._asked.live.aclose()
                return
            if self._asked.has_ended:
                async for _ in self._items:
                    pass
            await aclose(self._items)

    return Stream, AsyncStream


class _Pace:
    """When each chunk of a stored stream is due, where it is replayed as it came."""

    def __init__(self, door: Door, head: Head) -> None:
        self._moments = [at / 1000 for _, at in head.chunks] if door.is_paced else []
        self._began = time.perf_counter()

    def seconds_until(self, number: int) -> float:
        if number >= len(self._moments):
            return 0.0
        return max(self._moments[number] - (time.perf_counter() - self._began), 0.0)
