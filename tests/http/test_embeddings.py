"""Vectors: each text has an entry of its own, and only what is missing is asked for."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from redis import Redis

import llmcache
from llmcache import leases
from llmcache.background import database
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.doors.replay import ask_again
from llmcache.flow import abreast
from llmcache.flow.replay import described_in
from llmcache.outcomes import NO_RECEIPT
from llmcache.store.rows import tier as durable
from tests.support.backends import OWN, Backend, backend_parameters, use
from tests.support.dialects import Model
from tests.support.embedders import EMBEDDERS, Embedder, Post, asked, outcomes_of, vectors_in
from tests.support.http import Sdk, cohere
from tests.support.servers import RedisServer, require
from tests.support.vectors import numbers
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


backends = pytest.mark.parametrize(
    "backend", backend_parameters(["default"], [None, "redis"]), indirect=True
)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture(params=EMBEDDERS)
def sdk(request: pytest.FixtureRequest) -> Embedder:
    return EMBEDDERS[request.param]


@backends
def test_each_text_is_paid_for_once(
    backend: Backend, dialects: Model, sdk: Embedder, is_async: bool
) -> None:
    plain, wrapped = (sdk.make(dialects.root, is_async) for _ in range(2))
    [(live, tokens)] = sdk.embedded(plain, [["one", "two", "three"]], is_async=is_async)
    one, two, three = live
    batches = [["one", "two"], ["three", "two", "three", "one"], ["one", "two", "three"]]
    with llmcache.capture() as calls:
        said = sdk.embedded(llmcache.wrap(wrapped), batches, is_async=is_async)
    assert [vectors for vectors, _ in said] == [[one, two], [three, two, three, one], live]
    assert [told for _, told in said] == [None if tokens is None else told for told in (6, 5, 0)]
    assert outcomes_of(calls) == ["miss"] * 2 + ["miss", "hit", "hit"] + ["hit"] * 3
    assert [len(texts) for texts in asked(dialects)] == [3, 2, 1]


def test_a_hundred_texts_are_one_question_to_redis_and_ten_to_the_model(
    settings: Any, dialects: Model, post: Post, redis: RedisServer
) -> None:
    use(settings, OWN, redis.url)
    texts = [f"text {number}" for number in range(100)]
    post(texts[:90])
    database.finish()
    with llmcache.capture() as calls, told_to(redis) as commands:
        vectors = vectors_in(post(texts))
    assert vectors == [numbers(text) for text in texts]
    assert [(call.outcome, call.tier) for call in calls] == [("hit", "hot")] * 90 + [
        ("miss", None)
    ] * 10
    assert asked(dialects) == [texts[:90], texts[90:]]
    keys = [call.key for call in calls]
    for_entries = [
        each for each in commands if each[:1] in (["GET"], ["MGET"]) and keys[0] in each[1]
    ]
    assert [(name, len(keys)) for name, *keys in for_entries] == [("MGET", 100)]


@contextmanager
def told_to(redis: RedisServer) -> Iterator[list[list[str]]]:
    """What the server is told inside, in the words of its clients."""
    commands: list[list[str]] = []
    with Redis.from_url(redis.url) as operator, operator.monitor() as monitor:
        yield commands
        with Redis.from_url(redis.url) as other:
            other.echo("the end")
        for each in monitor.listen():
            if "the end" in each["command"]:
                return
            commands.append(each["command"].split())


@pytest.mark.parametrize("first", ["alone", "in a batch"])
def test_a_single_text_and_the_same_in_a_batch_are_one_entry(
    dialects: Model, post: Post, first: str
) -> None:
    one, two = ("a", ["b", "a"]) if first == "alone" else (["b", "a"], "a")
    with llmcache.capture() as calls:
        vectors = [vectors_in(post(one)), vectors_in(post(two))]
    assert vectors[first == "alone"] == [numbers("b"), numbers("a")]
    assert vectors[first != "alone"] == [numbers("a")]
    assert len({call.key for call in calls}) == 2
    assert asked(dialects) == (["a", ["b"]] if first == "alone" else [["b", "a"]])


def test_a_response_tells_the_texts_of_its_call_and_an_entry_no_others(dialects: Model) -> None:
    with llmcache.http_client() as client:
        for texts in (["a", "b"], ["c", "b"], ["b", "a"]):
            said = client.post(f"{dialects.root}/v2/embed", json={"model": "m", "texts": texts})
            assert said.json()["texts"] == texts
    for entry in durable.entries():
        stored = StoredAnswer.unpack(unseal(ANSWER, entry.key, bytes(entry.payload)).body)
        assert stored.completion is not None
        assert json.loads(stored.completion.data)["texts"] == []


def test_a_list_of_tokens_is_one_text(dialects: Model, post: Post) -> None:
    assert vectors_in(post([1, 2])) == [numbers([1, 2])]
    assert vectors_in(post([[3], [1, 2]])) == [numbers([3]), numbers([1, 2])]
    assert asked(dialects) == [[1, 2], [[3]]]


def test_what_else_is_asked_tells_entries_apart(dialects: Model, post: Post) -> None:
    for more in ({}, {"dimensions": 2}, {"encoding_format": "base64"}, {"model": "n"}):
        post(["a"], **more)
    assert dialects.asked == 4
    post(["a"], user="another")
    assert dialects.asked == 4


def test_numbers_come_back_as_they_were_written(dialects: Model, post: Post) -> None:
    written = b"[1.50E-3, 0.1000000000000000055511151231257827, -0, 1e400]"

    def rewritten(content: bytes) -> bytes:
        return re.sub(rb"\[[-\d][^]]*\]", lambda _: written, content)

    dialects.change = rewritten
    live, stored = post(["a", "b"]), post(["b", "a"])
    for response in (live, stored):
        assert response.content.count(written) == 2
    assert dialects.asked == 1


def test_it_is_asked_as_the_modes_say(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        post(["a", "a"], wishes={"mode": "no-store"})  # (which passes as it is)
    assert outcomes_of(calls) == ["bypass"]
    with pytest.raises(llmcache.CacheMiss):
        post(["a", "b"], wishes={"mode": "only-if-cached"})
    post(["a", "b"], wishes={"ttl": 0})
    post(["a"])
    with pytest.raises(llmcache.CacheMiss):
        post(["a", "b"], wishes={"mode": "only-if-cached"})
    post(["a", "b"], wishes={"mode": "reload"})
    post(["a", "b"], wishes={"mode": "only-if-cached"})
    assert asked(dialects) == [["a", "a"], ["a", "b"], ["a"], ["a", "b"]]


def test_the_status_of_a_list_that_is_partly_stored_says_so(dialects: Model, post: Post) -> None:
    def status_of(*texts: str, **wishes: Any) -> str:
        return str(post(texts, wishes={"ttl": None} | wishes).headers["cache-status"])

    assert status_of("a", "b") == "llmcache; fwd=uri-miss; stored"
    assert status_of("a", "c", "b") == "llmcache; fwd=partial; stored"
    assert status_of("a", "c", "b") == "llmcache; hit"
    assert status_of("a", "d", ttl=0) == "llmcache; fwd=partial"
    assert status_of("a", "d", mode="reload") == "llmcache; fwd=request; stored"
    dialects.status = 429
    assert status_of("a", "e") == "llmcache; fwd=partial"


def test_a_namespace_is_a_namespace(dialects: Model, post: Post) -> None:
    post(["a", "b"])
    with llmcache.override(namespace="another"), llmcache.capture() as calls:
        post(["a", "b"])
    assert outcomes_of(calls) == ["miss", "miss"]
    assert {call.namespace for call in calls} == {"another"}


def test_one_text_is_removed_by_itself(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        post(["a", "b"], wishes={"tags": ["both"]})
        post(["c"], wishes={"tags": ["one"]})
    llmcache.invalidate(keys=[calls[0].key])
    post(["a", "b", "c"])
    llmcache.invalidate(tags=["one"])
    post(["a", "b", "c"])
    assert asked(dialects) == [["a", "b"], ["c"], ["a"], ["c"]]


STALE = {"ttl": 0.01, "stale_while_revalidate": 60}


def test_what_is_stale_is_refreshed_behind_the_caller_by_one_request(
    dialects: Model, post: Post
) -> None:
    post(["a", "b", "c"], wishes=STALE)
    time.sleep(0.05)
    with llmcache.capture() as calls:
        assert vectors_in(post(["b", "d", "a"], wishes=STALE | {"ttl": 60})) == [
            numbers(text) for text in "bda"
        ]
    answered = [outcome for outcome in outcomes_of(calls) if outcome != "reload"]
    assert answered == ["stale", "miss", "stale"]
    wait_until(lambda: dialects.asked == 3)
    database.finish()
    assert sorted(asked(dialects)[1:]) == [["b", "a"], ["d"]]
    wait_until(lambda: forced(post, ["a", "b"]) == ["hit", "hit"])
    assert dialects.asked == 3


def forced(post: Post, texts: list[str]) -> list[str]:
    with llmcache.capture() as calls:
        post(texts, wishes={"mode": "force-cache"})
    return outcomes_of(calls)


@pytest.mark.parametrize("is_async", [False])
@pytest.mark.parametrize("missing", [["b"], ["b", "c"]])
def test_what_another_one_has_stored_meanwhile_is_not_asked_for(
    dialects: Model, post: Post, monkeypatch: Any, missing: list[str]
) -> None:
    post(["a"])
    acquire = leases.acquire

    def acquire_late(*arguments: Any) -> Any:
        monkeypatch.undo()
        post(missing)
        return acquire(*arguments)

    monkeypatch.setattr(abreast, "acquire", acquire_late)
    with llmcache.capture() as calls:
        assert vectors_in(post(["a", *missing])) == list(map(numbers, ["a", *missing]))
    assert asked(dialects) == [["a"], missing]
    assert outcomes_of(calls[-len(missing) :]) == ["hit"] * len(missing)


@backends
def test_many_who_ask_the_same_ask_once(backend: Backend, dialects: Model, post: Post) -> None:
    texts = ["a", "b", "c"]
    answering = threading.Event()

    def change(content: bytes) -> bytes:
        answering.wait(10)
        return content

    dialects.change = change
    with ThreadPoolExecutor(8) as threads:
        coming = [threads.submit(post, texts) for _ in range(8)]
        wait_until(lambda: dialects.asked)
        time.sleep(0.3)
        answering.set()
        assert [vectors_in(each.result()) for each in coming] == [list(map(numbers, texts))] * 8
    assert dialects.asked == 1


@pytest.mark.parametrize("is_async", [False])
def test_a_text_is_asked_for_again_from_its_row(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        post(["a", "b"])
    entry = durable.entries().get(key=calls[1].key)
    assert described_in(entry)["messages"] == {"input": "b"}
    assert ask_again(entry).stored
    assert vectors_in(post(["a", "b"])) == [numbers("a"), numbers("b")]
    assert asked(dialects) == [["a", "b"], "b"]


def test_what_was_used_is_shared_among_the_texts(dialects: Model, post: Post) -> None:
    with llmcache.capture() as calls:
        post(["a", "four"], model="text-embedding-3-small")
        said = post(["four", "a", "xyz"], model="text-embedding-3-small")
    assert said.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    spent = [call.spent and (call.spent.input_tokens, call.spent.output_tokens) for call in calls]
    assert spent == [(1, 0), (4, 0), None, None, (3, 0)]
    costs = [(call.spent or call.saved or NO_RECEIPT).cost for call in calls]
    assert costs == [20, 80, 80, 20, 60]  # (billionths of a dollar)


def test_a_ranking_is_kept_as_a_whole(dialects: Model, is_async: bool) -> None:
    sdk = Sdk(
        cohere, lambda client, text: client.rerank(model="m", query=text, documents=["a", "b"])
    )
    client = llmcache.wrap(sdk.make(dialects.root, is_async))
    with llmcache.capture() as calls:
        live, stored = sdk.answers(client, ["Which city?"] * 2, is_async=is_async)
    assert stored == live
    assert outcomes_of(calls) == ["miss", "hit"]


@settings_of_hypothesis(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), max_size=4))
@pytest.mark.parametrize("is_async", [False])
def test_each_text_is_asked_for_once_in_whatever_batches(
    dialects: Model, post: Post, batches: list[list[str]]
) -> None:
    llmcache.invalidate(everything=True)
    dialects.bodies.clear()
    for texts in batches:
        assert vectors_in(post(texts)) == [numbers(text) for text in texts]
    texts_asked = [text for texts in asked(dialects) for text in texts]
    known = {text for texts in batches for text in texts}
    assert sorted(texts_asked) == sorted(known)
