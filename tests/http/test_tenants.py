"""The namespace of a request, where its view asks over HTTP: no tenant is served another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

import llmcache
from llmcache.models import CacheEntry
from tests.support.dialects import Model
from tests.support.http import Sdk, chat
from tests.support.http import openai as make_openai

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]

OPENAI = Sdk(make_openai, chat, lambda client, text: chat(client, text, stream=True))
#: The model that the views ask.
root = ""


def of_the_tenant(request: HttpRequest) -> Any:
    return request.headers.get("X-Tenant")


def _client(*, is_async: bool) -> Any:
    # (that it was given a namespace is to count for nothing)
    return llmcache.wrap(make_openai(root, is_async), namespace="shared")


def whole(request: HttpRequest) -> HttpResponse:
    return HttpResponse(chat(_client(is_async=False), "Which city?").choices[0].message.content)


async def awhole(request: HttpRequest) -> HttpResponse:
    said = await chat(_client(is_async=True), "Which city?")
    return HttpResponse(said.choices[0].message.content)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """The model is asked once the view has returned."""

    def body() -> Iterator[str]:
        for chunk in chat(_client(is_async=False), "Which city?", stream=True):
            yield chunk.choices[0].delta.content or "" if chunk.choices else ""

    return StreamingHttpResponse(body())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        async for chunk in await chat(_client(is_async=True), "Which city?", stream=True):
            yield chunk.choices[0].delta.content or "" if chunk.choices else ""

    return StreamingHttpResponse(body())


def vectors(request: HttpRequest) -> HttpResponse:
    said = _client(is_async=False).embeddings.create(model="m", input=["a", "b"])
    return HttpResponse(str(len(said.data)))


async def avectors(request: HttpRequest) -> HttpResponse:
    said = await _client(is_async=True).embeddings.create(model="m", input=["a", "b"])
    return HttpResponse(str(len(said.data)))


VIEWS: list[Any] = [whole, awhole, stream, astream, vectors, avectors]
urlpatterns = [path(view.__name__, view) for view in VIEWS]


@pytest.fixture(autouse=True)
def _site(settings: Any, dialects: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["llmcache.middleware.NamespaceMiddleware"]
    settings.LLMCACHE = {"CACHE": None, "REQUEST_NAMESPACE": f"{__name__}.of_the_tenant"}
    monkeypatch.setitem(globals(), "root", dialects.root)


async def read(response: Any) -> bytes:
    if not response.streaming:
        return bytes(response.content)
    return b"".join([part async for part in response])


def over_wsgi(view: Any, tenant: str) -> bytes:
    response: Any = Client().get(f"/{view.__name__}", headers={"X-Tenant": tenant})
    return bytes(response.getvalue())


async def over_asgi(view: Any, tenant: str | None) -> bytes:
    headers = {} if tenant is None else {"X-Tenant": tenant}
    return await read(await AsyncClient().get(f"/{view.__name__}", headers=headers))


@pytest.mark.parametrize("view", VIEWS)
def test_each_tenant_pays_for_itself_and_once(dialects: Model, view: Any) -> None:
    async def main() -> list[bytes]:
        return [await over_asgi(view, tenant) for tenant in ("A", "B", "A", "B")]

    one, other, *again = asyncio.run(main())
    assert again == [one, other]
    assert dialects.asked == 2
    rows = CacheEntry.objects.values_list("namespace", flat=True).distinct()
    assert set(rows) == {"A", "B"}


@pytest.mark.parametrize("view", [whole, awhole, stream, vectors, avectors])
def test_each_tenant_pays_for_itself_under_wsgi(dialects: Model, view: Any) -> None:
    one, other, *again = [over_wsgi(view, tenant) for tenant in ("A", "B", "A", "B")]
    assert again == [one, other]
    assert dialects.asked == 2


@pytest.mark.parametrize("view", [whole, awhole, vectors, avectors])  # (streams wait for nobody)
def test_tenants_who_ask_at_the_same_time_do_not_wait_for_each_other(
    dialects: Model, view: Any
) -> None:
    tenants = [f"tenant {number}" for number in range(4)] * 2

    async def main() -> list[bytes]:
        return await asyncio.gather(*(over_asgi(view, tenant) for tenant in tenants))

    said = asyncio.run(main())
    assert said[:4] == said[4:]
    assert dialects.asked == 4
    rows = CacheEntry.objects.values_list("namespace", flat=True).distinct()
    assert set(rows) == set(tenants)


@pytest.mark.parametrize("view", VIEWS)
def test_what_nobody_asks_is_kept_for_nobody(dialects: Model, view: Any) -> None:
    async def main() -> None:
        for _ in range(2):
            await over_asgi(view, None)

    asyncio.run(main())
    assert dialects.asked == 2
    assert not CacheEntry.objects.exists()
