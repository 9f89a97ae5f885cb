"""Vectors where something is wrong: with what came, the provider, the store or the request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

import llmcache
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, seal
from llmcache.store.rows import tier as durable
from tests.support import vectors
from tests.support.backends import without_table
from tests.support.dialects import Model
from tests.support.embedders import Post, asked, outcomes_of, vectors_in
from tests.support.vectors import numbers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


BROKEN: dict[str, Callable[[Any], object]] = {
    "a vector too few": lambda said: said["data"].pop(),
    "a vector too many": lambda said: said["data"].append(said["data"][0] | {"index": 2}),
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
