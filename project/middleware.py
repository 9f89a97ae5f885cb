"""A strict Content-Security-Policy for every page, the admin's included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Nothing inline and nothing from elsewhere: an answer with a script in it stays text."""

    def secured(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return secured(await cast(Awaitable[HttpResponseBase], get_response(request)))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return secured(get_response(request))

    return synchronous
