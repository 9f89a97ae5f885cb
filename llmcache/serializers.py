"""The Redis serializer for the hot tier: bytes in, the same bytes out, and never pickle.

Unpickling what is read from Redis runs code for whoever can write to Redis. llmcache encodes its
entries itself (see `llmcache.codec`), so the cache backend has nothing left to serialize.
"""

from __future__ import annotations

from typing import Any


class BytesSerializer:
    """Passes bytes through; serves django-redis and Django's own `RedisCache`.

    django-redis: ``"OPTIONS": {"SERIALIZER": "llmcache.serializers.BytesSerializer"}``;
    Django: ``"OPTIONS": {"serializer": "llmcache.serializers.BytesSerializer"}``.

    Anything but bytes is a `TypeError`: the cache alias is for llmcache alone.
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """`options` is what django-redis hands to each serializer; nothing in it is used."""

    def dumps(self, value: bytes) -> bytes:
        if isinstance(value, bytes):
            return value
        raise TypeError(
            f"BytesSerializer stores bytes, not {type(value).__name__}. Give llmcache a cache "
            "alias of its own (LLMCACHE['CACHE'])."
        )

    def loads(self, value: bytes) -> bytes:
        return value
