"""`NamespaceMiddleware`: what a request asks is stored in the namespace of that request alone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from llmcache.conf import settings
from llmcache.discretion import without_content
from llmcache.policy import UNSET, Unset, in_request, read_name

logger = logging.getLogger("llmcache")

# None: the request has none, and neither have its calls. Unset: nobody tells.
Namespace = str | Unset | None


class NamespaceMiddleware:
    """Give all calls of a request the namespace that ``LLMCACHE["REQUEST_NAMESPACE"]`` tells of it.

    The function is given the request, and returns a string; or None, and then the calls have no
    namespace, whatever their client has. So it is where it raises, or returns what cannot be a
    namespace. It may be a coroutine function.

    The calls are those of the view, of the middleware below this one, and of the body of a
    `StreamingHttpResponse` until it is closed; not those on threads that a view starts by itself.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer(request)
        namespace = _namespace_of(request)
        with in_request(namespace):
            return _with_body_in(namespace, self.get_response(request))

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        namespace = await _anamespace_of(request)
        with in_request(namespace):
            return _with_body_in(namespace, await self.get_response(request))


def _namespace_of(request: HttpRequest) -> Namespace:
    with _failing_closed():
        function = settings.request_namespace
        if iscoroutinefunction(function):
            function = async_to_sync(function)
        return _read(function(request)) if function else UNSET
    return None


async def _anamespace_of(request: HttpRequest) -> Namespace:
    with _failing_closed():
        function = settings.request_namespace
        if function and not iscoroutinefunction(function):
            function = sync_to_async(function)  # it may ask the database, as `request.user` does
        return _read(await function(request)) if function else UNSET
    return None


@contextmanager
def _failing_closed() -> Iterator[None]:
    """Whose a request is, is in doubt where the project's function fails: then it is nobody's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is the project's
        why = without_content(error)
        logger.warning("llmcache: the namespace of a request could not be told: %s", why)


def _read(namespace: object) -> str | None:
    return None if namespace is None else read_name(namespace, "namespace")


def _with_body_in(namespace: Namespace, response: HttpResponseBase) -> HttpResponseBase:
    """`response`, whose body, where it is made while it is sent, is made in the namespace too.

    And closed: a client that goes away ends a generator within its ``try``.
    """
    if not isinstance(response, StreamingHttpResponse):
        return response
    body: Any = response
    body._resource_closers[:] = map(in_request(namespace), body._resource_closers)  # noqa: SLF001
    if getattr(response, "file_to_stream", None) is None:  # (a server sends a file by itself)
        cover = _acovered if response.is_async else _covered
        # (past `streaming_content`, which holds the response: a circle ends late, and anywhere)
        response.streaming_content = cover(namespace, body._iterator)  # noqa: SLF001
    return response


# Both are in the namespace for one step at a time: who sends the parts may be anywhere in between.


def _covered(namespace: Namespace, parts: Any) -> Iterator[Any]:
    while True:
        with in_request(namespace):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def _acovered(namespace: Namespace, parts: Any) -> AsyncIterator[Any]:
    try:
        while True:
            with in_request(namespace):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part
    finally:
        with in_request(namespace):
            if aclose := getattr(parts, "aclose", None):
                await aclose()
