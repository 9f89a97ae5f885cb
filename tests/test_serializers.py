"""The serializer: bytes in and the same bytes out, through both Redis backends."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.redis import RedisCacheClient
from django_redis.client import DefaultClient  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmcache.codec.envelope import ANSWER, seal
from llmcache.serializers import BytesSerializer

PATH = "llmcache.serializers.BytesSerializer"
SEALED = seal(ANSWER, "ab" * 32, b"body", created=0)


class Evil:
    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def through_django_redis(value: Any) -> Any:
    client = DefaultClient("redis://127.0.0.1:1/0", {"OPTIONS": {"SERIALIZER": PATH}}, None)
    return client.decode(client.encode(value))


def through_django(value: Any) -> Any:
    client: Any = RedisCacheClient(["redis://127.0.0.1:1/0"], serializer=PATH)
    return client._serializer.loads(client._serializer.dumps(value))


def alone(value: Any) -> Any:
    return BytesSerializer().loads(BytesSerializer().dumps(value))


THROUGH = [alone, through_django, through_django_redis]


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("value", [SEALED, b"\x00\xff\x80", pickle.dumps({"a": 1})], ids=repr)
def test_bytes_come_back(through: Callable[[Any], Any], value: bytes) -> None:
    found = through(value)
    assert found == value
    assert type(found) is bytes


@hypothesis_settings(deadline=None)
@given(st.binary())
def test_any_bytes_come_back(value: bytes) -> None:
    assert alone(value) == value
    assert through_django(value) == value


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("value", ["a", None, {"a": 1}, bytearray(b"a"), [b"a"], set()], ids=repr)
def test_anything_else_is_refused_with_the_way_out(
    through: Callable[[Any], Any], value: Any
) -> None:
    with pytest.raises(TypeError, match=r"an? .*alias of its own \(LLMCACHE\['CACHE'\]\)"):
        through(value)


@pytest.mark.parametrize("through", THROUGH)
def test_nothing_is_unpickled(through: Callable[[Any], Any]) -> None:
    evil = pickle.dumps(Evil())
    assert through(evil) == evil


@pytest.mark.parametrize("number", [1, True, 1.5])
def test_numbers_are_refused_too(number: Any) -> None:
    """(The backends themselves pass numbers by their serializer.)"""
    with pytest.raises(TypeError):
        alone(number)
