"""Vectors where something is wrong: with what came, the provider, the store or the request."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from django.db import transaction

import llmcache
from llmcache import leases
from llmcache.background import database
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, seal
from llmcache.flow import abreast
from llmcache.reasons import ReasonCode
from llmcache.store.rows import tier as durable
from tests.support import vectors
from tests.support.backends import Undo, hold_the_write_lock, without_table
from tests.support.dialects import Model
from tests.support.embedders import Post, asked, outcomes_of, vectors_in
from tests.support.provider import ADDRESS, Provider, Said
from tests.support.vectors import numbers
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


BROKEN: dict[str, Callable[[Any], object]] = {
    "a vector too few": lambda said: said["data"].pop(),
    "a vector too many": lambda said: said["data"].append(said["data"][0] | {"index": 2}),
    "one of them twice": lambda said: said["data"].append(said["data"][0]),
    "no vectors": lambda said: said.pop("data"),
    "no number": lambda said: said["data"][0].pop("index"),
    "a number twice": lambda said: said["data"][0].update(index=1),
    "another number": lambda said: said["data"][0].update(index=7),
    "a number that is none": lambda said: said["data"][0].update(index=False),
    "words": lambda said: said["data"][0].update(embedding=["one", "two"]),
    "nothing": lambda said: said["data"][0].update(embedding=[]),
    "null": lambda said: said["data"][0].update(embedding=None),
    "truth": lambda said: said["data"][0].update(embedding=[True, False]),
    "no base64": lambda said: said["data"][0].update(embedding="a word"),
    "an error inside": lambda said: said.update(error={"message": "overloaded"}),
}


def broken(how: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        said = json.loads(content)
        BROKEN[how](said)
        return json.dumps(said).encode()

    return change


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_vector_for_each_text_is_handed_on_and_not_kept(
    dialects: Model, post: Post, how: str
) -> None:
    dialects.change = broken(how)
    with llmcache.capture() as calls:
        said = post(["a", "b"])
    expected = json.dumps(vectors.openai({"model": "m", "input": ["a", "b"]}, {}, cut=False))
    assert said.content == broken(how)(expected.encode())
    assert [call.stored for call in calls] == [False, False]
    assert calls[0].reason
    dialects.change = bytes
    assert vectors_in(post(["a", "b"])) == [numbers("a"), numbers("b")]
    assert dialects.asked == 2


def test_what_is_no_vector_for_some_is_asked_for_as_a_whole(dialects: Model, post: Post) -> None:
    post(["a"])

    def change(content: bytes) -> bytes:
        return content if b'"index": 2' in content else broken("words")(content)

    dialects.change = change
    with llmcache.capture() as calls:
        said = post(["a", "b", "c"])
    assert vectors_in(said) == [numbers(text) for text in "abc"]
    assert asked(dialects) == [["a"], ["b", "c"], ["a", "b", "c"]]
    assert outcomes_of(calls) == ["hit", "miss", "miss", "bypass"]


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_is_handed_on_and_not_kept(dialects: Model, post: Post, status: int) -> None:
    post(["a"])
    dialects.status = status
    with llmcache.capture() as calls:
        said = post(["a", "b"])
    assert said.status_code == status
    assert outcomes_of(calls) == ["hit", "miss"]
    dialects.status = 200
    assert vectors_in(post(["a", "b"])) == [numbers("a"), numbers("b")]
    assert asked(dialects) == [["a"], ["b"], ["b"]]


@pytest.mark.parametrize("fails", ["status", "connection"])
def test_what_is_stale_serves_where_the_provider_fails(dialects: Model, fails: str) -> None:
    with llmcache.http_client(retries=0, stale_if_error=60, ttl=0.01) as client:

        def post(*texts: str) -> Any:
            said = {"model": "m", "input": texts}
            return client.post(f"{dialects.root}/v1/embeddings", json=said)

        post("a", "b")
        time.sleep(0.05)
        dialects.status = 503
        if fails == "connection":
            dialects.__exit__()
        with llmcache.capture() as calls:
            assert vectors_in(post("b", "a")) == [numbers("b"), numbers("a")]
        assert outcomes_of(calls) == ["stale", "stale"]
        if fails == "status":  # (there is no stale one of "c")
            assert post("a", "c").status_code == 503


def test_texts_that_are_read_together_are_one_answer(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        for texts in (["a", "b"], ["a", "b"], ["b", "a"]):
            post(texts, late_chunking=True)
    assert outcomes_of(calls) == ["miss", "hit", "miss"]


def test_a_signed_body_is_sent_as_it_is(dialects: Model) -> None:
    signed = {"content-digest": "sha-256=:abc:"}
    with llmcache.http_client() as client:
        for texts in (["a"], ["b", "a", "c", "b"], ["c", "b"]):
            said = {"model": "m", "input": texts}
            came = client.post(f"{dialects.root}/v1/embeddings", json=said, headers=signed)
            assert vectors_in(came) == list(map(numbers, texts))
    assert asked(dialects) == [["a"], ["b", "a", "c", "b"]]


def test_no_failure_of_the_store_reaches_the_caller(dialects: Model, post: Post) -> None:
    post(["a"])
    with without_table():
        assert vectors_in(post(["a", "b"])) == [numbers("a"), numbers("b")]


def test_a_bad_entry_is_asked_for_anew(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        post(["a", "b"])
    payload = seal(ANSWER, calls[0].key, StoredAnswer(b"{}").pack(), created=1.0, expires=None)
    durable.entries().filter(key=calls[0].key).update(payload=payload)
    assert vectors_in(post(["a", "b"])) == [numbers("a"), numbers("b")]
    assert asked(dialects) == [["a", "b"], ["a"]]


def test_vectors_of_different_types_are_not_put_together(dialects: Model) -> None:
    def embed(*texts: str) -> Any:
        said = client.post(f"{dialects.root}/v2/embed", json={"model": "m", "texts": texts})
        return said.json()

    with llmcache.http_client() as client:
        embed("a")
        dialects.change = lambda content: content.replace(b'"float"', b'"int8"')
        with llmcache.capture() as calls:
            said = embed("a", "b")
    assert said["embeddings"] == {"int8": [numbers("a"), numbers("b")]}
    assert said["texts"] == ["a", "b"]
    assert outcomes_of(calls) == ["hit", "miss", "bypass"]


def test_a_text_that_is_too_large_is_not_kept_and_the_others_are(
    settings: Any, dialects: Model, post: Post
) -> None:
    with llmcache.capture() as calls:
        post(["a"])
    settings.LLMCACHE = {"MAX_ENTRY_BYTES": calls[0].size + 30}
    dialects.change = lambda content: content.replace(b"[", b"[" + b" " * 50, 3).replace(
        b"[" + b" " * 50, b"[", 2
    )
    with llmcache.capture() as calls:
        assert vectors_in(post(["b", "c"])) == [numbers("b"), numbers("c")]
    assert [(call.stored, call.reason_code) for call in calls] == [
        (True, None),
        (False, ReasonCode.TOO_LARGE),
    ]


@pytest.mark.parametrize("is_async", [False])
def test_in_a_transaction_of_the_caller_nothing_is_lost(dialects: Model, post: Post) -> None:
    with suppress(Undo), transaction.atomic():
        hold_the_write_lock()
        post(["a", "b"])
        post(["b", "a"])
        raise Undo
    database.finish()
    post(["a", "b"])
    assert asked(dialects) == [["a", "b"]]


def test_what_is_invalidated_meanwhile_is_not_kept(dialects: Model, post: Post) -> None:
    def change(content: bytes) -> bytes:
        llmcache.invalidate(everything=True)
        return content

    dialects.change = change
    with llmcache.capture() as calls:
        post(["a", "b"])
    assert [call.reason_code for call in calls] == [ReasonCode.INVALIDATED] * 2
    assert durable.entries().count() == 0


def test_who_is_cancelled_leaves_the_question_to_others(dialects: Model) -> None:
    answering = threading.Event()

    def change(content: bytes) -> bytes:
        answering.wait(10)
        return content

    async def embed(client: Any) -> Any:
        said = {"model": "m", "input": ["a", "b"]}
        return await client.post(f"{dialects.root}/v1/embeddings", json=said)

    async def cancelled() -> Any:
        dialects.change = change
        async with llmcache.async_http_client() as client:
            first = asyncio.ensure_future(embed(client))
            await asyncio.to_thread(wait_until, lambda: dialects.asked)
            others = [asyncio.ensure_future(embed(client)) for _ in range(3)]
            await asyncio.sleep(0.3)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
            await asyncio.to_thread(wait_until, lambda: dialects.asked > 1)
            await asyncio.sleep(0.3)  # (for whoever else would ask)
            answering.set()
            return await asyncio.gather(*others)

    with llmcache.capture() as calls:
        for came in asyncio.run(cancelled()):
            assert vectors_in(came) == [numbers("a"), numbers("b")]
    assert dialects.asked == 2
    assert sorted(outcomes_of(calls)) == ["hit"] * 4 + ["miss"] * 4
    assert [call.stored for call in calls].count(True) == 2


@pytest.mark.parametrize(
    "comes", [Said(b"{}", 500), httpx2.ConnectError("refused")], ids=["status", "connection"]
)
def test_of_who_waits_for_what_fails_all_ask_at_once(monkeypatch: Any, comes: Any) -> None:
    """One after the other would wait for one failure more each."""
    waiting, together = list[None](), threading.Barrier(3)
    acquire = leases.acquire

    def acquire_and_tell(*arguments: Any) -> Any:
        waiting.append(None)
        return acquire(*arguments)

    def said(request: Any) -> Any:
        if request is provider.asked[0]:
            wait_until(lambda: len(waiting) == 4)
            time.sleep(0.3)  # (until they have joined it)
        else:
            together.wait(20)
        return comes

    def embed() -> Any:
        with suppress(httpx2.ConnectError):
            asked = {"model": "m", "input": ["a", "b"]}
            assert client.post(f"{ADDRESS}/embeddings", json=asked).status_code == 500

    monkeypatch.setattr(abreast, "acquire", acquire_and_tell)
    provider = Provider(said)
    transport = llmcache.http_transport(provider.transport())
    with httpx2.Client(transport=transport, timeout=60) as client, ThreadPoolExecutor(4) as threads:
        first = threads.submit(embed)
        wait_until(lambda: provider.asked)
        others = [threads.submit(embed) for _ in range(3)]
        for each in (first, *others):
            each.result(60)
    assert len(provider.asked) == 4
