"""Vectors: each text has an entry of its own, and only what is missing is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from tests.support.backends import Backend, backend_parameters
from tests.support.dialects import Model
from tests.support.embedders import EMBEDDERS, Embedder

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]

backends = pytest.mark.parametrize(
    "backend", backend_parameters(["default"], [None, "redis"]), indirect=True
)


@pytest.fixture
def dialects() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture(params=EMBEDDERS)
def sdk(request: pytest.FixtureRequest) -> Embedder:
    return EMBEDDERS[request.param]


def said_of(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


def asked(model: Model) -> list[Any]:
    """The texts that the model was asked for each time."""
    names = ("input", "texts", "requests")
    return [next(body[name] for name in names if name in body) for body in model.bodies]


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
    assert said_of(calls) == ["miss"] * 2 + ["miss", "hit", "hit"] + ["hit"] * 3
    assert [len(texts) for texts in asked(dialects)] == [3, 2, 1]
