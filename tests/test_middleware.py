"""`NamespaceMiddleware`: whatever a view does for a request, it does in the request's namespace."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import Any

import pytest
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path

import llmcache
from llmcache.middleware import NamespaceMiddleware
from llmcache.store.rows import tier as durable

pytestmark = pytest.mark.django_db(transaction=True)


@llmcache.cached(namespace="shared")
def priced(article: str) -> int:
    """What asks here: a function, so that no model is needed."""
    return len(article)


@llmcache.cached(namespace="shared")
async def apriced(article: str) -> int:
    return len(article)


@llmcache.cached(namespace="shared")
def lines(article: str) -> Iterator[str]:
    yield str(priced(article))


def of_the_user(request: HttpRequest) -> Any:
    return request.headers.get("X-Tenant")


async def of_the_user_asked_for(request: HttpRequest) -> Any:
    await asyncio.sleep(0)
    return request.headers.get("X-Tenant")


def of_the_database(request: HttpRequest) -> Any:
    durable.entries().count()  # (on an event loop, Django refuses)
    return request.headers.get("X-Tenant")


def failing(request: HttpRequest) -> Any:
    raise KeyError("the secret of the request")


def no_name(request: HttpRequest) -> Any:
    return 7


def empty(request: HttpRequest) -> Any:
    return ""


def simple(request: HttpRequest) -> HttpResponse:
    return HttpResponse(priced("fig"))


async def asynchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await apriced("fig"))


def begun_in_the_body(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(priced(article)) for article in ("fig", "plum"))


def made_before_the_body(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(lines("fig"))


def with_an_override_in_the_body(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        with llmcache.override(tags=["body"]):
            yield str(priced("fig"))
            yield str(priced("plum"))

    return StreamingHttpResponse(body())


async def asynchronous_body(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        for article in ("fig", "plum"):
            await asyncio.sleep(0)
            yield str(await apriced(article))

    return StreamingHttpResponse(body())


def at_the_end_of_the_body(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        try:
            yield from ("fig", "plum")
        finally:
            priced("plum")

    return StreamingHttpResponse(body())


async def at_the_end_of_an_asynchronous_body(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        try:
            for article in ("fig", "plum"):
                yield article
        finally:
            await apriced("plum")
            is_closed.set()

    return StreamingHttpResponse(body())


is_closed = asyncio.Event()


class Body:
    """What is closed after its last part, and asks then."""

    def __iter__(self) -> Iterator[str]:
        return iter(["fig"])

    def close(self) -> None:
        priced("fig")


def with_a_body_that_asks_when_it_is_closed(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Body())


def at_the_end_of_a_transaction(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        transaction.on_commit(lambda: priced("fig"))
    return HttpResponse()


def in_a_template(request: HttpRequest) -> TemplateResponse:
    template = engines["django"].from_string("{{ price }}")
    return TemplateResponse(request, template, {"price": lambda: priced("fig")})


async def on_threads_that_go_with_it(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(priced, "fig")
    await asyncio.create_task(apriced("plum"))
    return HttpResponse()


def on_a_thread_that_is_given_it(request: HttpRequest) -> HttpResponse:
    with ThreadPoolExecutor(1) as pool:
        return HttpResponse(pool.submit(copy_context().run, priced, "fig").result())


COVERED = [
    simple,
    asynchronous,
    begun_in_the_body,
    made_before_the_body,
    with_an_override_in_the_body,
    asynchronous_body,
    at_the_end_of_the_body,
    at_the_end_of_an_asynchronous_body,
    with_a_body_that_asks_when_it_is_closed,
    at_the_end_of_a_transaction,
    in_a_template,
    on_threads_that_go_with_it,
    on_a_thread_that_is_given_it,
]


def in_a_pool(request: HttpRequest) -> HttpResponse:
    with ThreadPoolExecutor(1) as pool:
        return HttpResponse(pool.submit(unnamed, "fig").result())


def in_a_thread(request: HttpRequest) -> HttpResponse:
    thread = threading.Thread(target=unnamed, args=("fig",))
    thread.start()
    thread.join()
    return HttpResponse()


async def in_an_executor(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await asyncio.get_running_loop().run_in_executor(None, unnamed, "fig"))


@llmcache.cached
def unnamed(article: str) -> int:
    return len(article)


NOT_COVERED = [in_a_pool, in_a_thread, in_an_executor]


def off(request: HttpRequest) -> HttpResponse:
    raise ValueError


views: list[Any] = [*COVERED, *NOT_COVERED, off]
urlpatterns = [path(view.__name__, view) for view in views]


@pytest.fixture(autouse=True)
def _site(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["llmcache.middleware.NamespaceMiddleware"]
    use(settings, of_the_user)


def use(settings: Any, function: Callable[..., Any], **changes: Any) -> None:
    named = {"REQUEST_NAMESPACE": f"{__name__}.{function.__name__}"}
    settings.LLMCACHE = {"CACHE": None, "NAMESPACE": None} | named | changes


def over_wsgi(view: Callable[..., Any], tenant: str) -> bytes:
    response: Any = Client().get(f"/{view.__name__}", headers={"X-Tenant": tenant})
    if not response.streaming:
        return bytes(response.content)
    if not response.is_async:
        with closing(response):
            return b"".join(response)

    async def read() -> bytes:
        return b"".join([part async for part in response])

    return asyncio.run(read())


def over_asgi(view: Callable[..., Any], tenant: str) -> bytes:
    async def get() -> bytes:
        response: Any = await AsyncClient().get(f"/{view.__name__}", headers={"X-Tenant": tenant})
        if not response.streaming:
            return bytes(response.content)
        if response.is_async:
            return b"".join([part async for part in response])
        # (as Django's handler reads an iterator that is none of the loop's)
        with closing(response):
            return b"".join(await asyncio.to_thread(list, response.streaming_content))

    return asyncio.run(get())


WAYS = pytest.mark.parametrize("get", [over_wsgi, over_asgi])


def namespaces() -> set[str]:
    return {row.namespace for row in durable.entries()}


@WAYS
@pytest.mark.parametrize("view", COVERED, ids=lambda view: view.__name__)
def test_two_tenants_share_nothing(get: Callable[..., bytes], view: Callable[..., Any]) -> None:
    assert get(view, "A") == get(view, "B")
    assert namespaces() == {"A", "B"}
    before = durable.entries().count()
    get(view, "A")
    assert durable.entries().count() == before


@WAYS
@pytest.mark.parametrize("view", NOT_COVERED, ids=lambda view: view.__name__)
def test_a_thread_of_its_own_has_no_namespace(
    get: Callable[..., bytes], view: Callable[..., Any]
) -> None:
    get(view, "A")
    get(view, "B")
    assert namespaces() == set()


@WAYS
@pytest.mark.parametrize("function", [of_the_user_asked_for, of_the_database])
def test_the_function_may_wait(
    settings: Any, get: Callable[..., bytes], function: Callable[..., Any]
) -> None:
    use(settings, function)
    for view in (simple, asynchronous):
        get(view, "A")
    assert namespaces() == {"A"}


@WAYS
@pytest.mark.parametrize("function", [failing, no_name, empty])
def test_a_function_that_fails_makes_the_request_nobodys(
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    get: Callable[..., bytes],
    function: Callable[..., Any],
) -> None:
    use(settings, function)
    assert get(simple, "A") == b"3"
    assert namespaces() == set()
    [record] = [each for each in caplog.records if each.name == "llmcache"][:1]
    assert record.levelno == logging.WARNING
    assert "could not be told: " in record.getMessage()
    assert "secret" not in caplog.text


@WAYS
def test_a_function_that_is_not_there_makes_all_requests_nobodys(
    settings: Any, get: Callable[..., bytes]
) -> None:
    settings.LLMCACHE = {"CACHE": None, "REQUEST_NAMESPACE": "no.such.function"}
    assert get(simple, "A") == b"3"
    assert namespaces() == set()


@WAYS
def test_without_the_setting_it_changes_nothing(settings: Any, get: Callable[..., bytes]) -> None:
    settings.LLMCACHE = {"CACHE": None}
    get(begun_in_the_body, "A")
    assert namespaces() == {"shared"}


def test_nothing_is_left_behind_on_the_thread(settings: Any) -> None:
    client = Client(raise_request_exception=False)
    for view in (simple, begun_in_the_body, off):
        client.get(f"/{view.__name__}", headers={"X-Tenant": "A"})
    priced("fig")
    assert namespaces() == {"A", "shared"}


def test_a_body_that_is_not_read_to_its_end_leaves_nothing_behind() -> None:
    response: Any = Client().get("/begun_in_the_body", headers={"X-Tenant": "A"})
    assert next(iter(response)) == b"3"
    assert priced("plum") == 4  # between two parts, on the same thread
    response.close()
    priced("fig")
    assert [(row.namespace) for row in durable.entries().order_by("pk")] == ["A", *["shared"] * 2]


def test_a_body_that_is_not_read_to_its_end_is_closed_in_the_namespace() -> None:
    response: Any = Client().get("/at_the_end_of_the_body", headers={"X-Tenant": "A"})
    assert next(iter(response)) == b"fig"
    response.close()
    assert namespaces() == {"A"}


def test_an_asynchronous_body_of_a_client_that_went_away_ends_in_the_namespace() -> None:
    async def main() -> None:
        middleware: Any = NamespaceMiddleware(at_the_end_of_an_asynchronous_body)
        response = await middleware(RequestFactory().get("/", headers={"X-Tenant": "A"}))
        parts = aiter(response)
        assert await anext(parts) == b"fig"
        await parts.aclose()  # (as Django does; the generators below are left to the loop)
        is_closed.clear()
        del response, parts
        await asyncio.wait_for(is_closed.wait(), 20)

    asyncio.run(main())
    assert namespaces() == {"A"}


def test_two_bodies_that_are_read_in_turns_keep_apart() -> None:
    bodies = [
        iter(Client().get("/begun_in_the_body", headers={"X-Tenant": tenant}))
        for tenant in ("A", "B")
    ]
    for _ in range(2):
        for body in bodies:
            next(body)
    rows = durable.entries().order_by("pk")
    assert [row.namespace for row in rows] == ["A", "B", "A", "B"]


def test_requests_at_the_same_time_keep_apart() -> None:
    async def get(tenant: str) -> None:
        response: Any = await AsyncClient().get("/asynchronous_body", headers={"X-Tenant": tenant})
        async for _ in response:
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(get(f"tenant {number}") for number in range(10)))

    asyncio.run(main())
    rows = [row.namespace for row in durable.entries()]
    assert sorted(rows) == sorted([f"tenant {number}" for number in range(10)] * 2)


def test_a_file_is_left_to_the_server() -> None:
    figs = io.BytesIO(b"figs")
    middleware: Any = NamespaceMiddleware(lambda _: FileResponse(figs))
    with closing(middleware(RequestFactory().get("/", headers={"X-Tenant": "A"}))) as response:
        assert response.file_to_stream is figs
        assert b"".join(response) == b"figs"


def test_an_override_around_a_request_wins() -> None:
    with llmcache.override(namespace="test"):
        over_wsgi(simple, "A")
    assert namespaces() == {"test"}
