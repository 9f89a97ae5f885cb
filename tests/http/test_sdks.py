"""Each SDK, wrapped: the same answers as without, and each question is paid for once."""

from __future__ import annotations

from typing import Any

import pytest

import llmcache
from tests.support.clients import outcomes
from tests.support.dialects import INPUT, Model
from tests.support.http import ASYNC_SDKS, SDKS, Sdk

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest, is_async: bool) -> Sdk:
    return (ASYNC_SDKS if is_async else SDKS)[request.param]


def test_a_question_is_paid_for_once(dialects: Model, sdk: Sdk, is_async: bool) -> None:
    clients = [sdk.make(dialects.root, is_async) for _ in range(2)]
    one, two = map(llmcache.wrap, clients)
    assert isinstance(one, type(clients[0]))
    with llmcache.capture() as calls:
        [live] = sdk.answers(one, ["Which city?"], is_async=is_async)
        [stored] = sdk.answers(two, ["Which city?"], is_async=is_async)
    assert outcomes(calls) == [("miss", None), ("hit", "durable")], calls
    assert calls[0].model == "m"
    assert calls[0].spent is not None
    assert calls[0].spent.input_tokens == INPUT
    assert stored == live
    assert dialects.asked == 1


def test_the_given_client_stays_as_it_is(dialects: Model, sdk: Sdk, is_async: bool) -> None:
    client = sdk.make(dialects.root, is_async)
    llmcache.wrap(client)
    with llmcache.capture() as calls:
        sdk.answers(client, ["Which city?"] * 2, is_async=is_async)
    assert not calls
    assert dialects.asked == 2


def test_a_stream_is_replayed_chunk_by_chunk(dialects: Model, sdk: Sdk, is_async: bool) -> None:
    one, two = (llmcache.wrap(sdk.make(dialects.root, is_async)) for _ in range(2))
    with llmcache.capture() as calls:
        [live] = sdk.streams(one, ["Which city?"], is_async=is_async)
        [stored] = sdk.streams(two, ["Which city?"], is_async=is_async)
    assert outcomes(calls) == [("miss", None), ("hit", "durable")], calls
    assert calls[0].spent is not None
    assert calls[0].spent.input_tokens == INPUT
    assert stored == live
    assert dialects.asked == 1


@pytest.mark.parametrize("way", ["answers", "streams"])
def test_what_is_cut_is_not_kept(dialects: Model, sdk: Sdk, is_async: bool, way: str) -> None:
    dialects.cut = True
    client = llmcache.wrap(sdk.make(dialects.root, is_async))
    ask: Any = getattr(sdk, way)
    with llmcache.capture() as calls:
        ask(client, ["Which city is cut?"] * 2, is_async=is_async)
    assert [(call.outcome, call.stored) for call in calls] == [("miss", False)] * 2, calls
    assert dialects.asked == 2
