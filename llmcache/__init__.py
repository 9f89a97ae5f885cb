"""llmcache: a reusable Django app that remembers what language models answered.

This is the public API. Everything is imported when it is first used, so that ``import llmcache``
is safe anywhere and costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache.adapter import DjangoCache
    from llmcache.client.inspection import aexplain, explain, key_for
    from llmcache.client.many.answering import acreate_many, create_many
    from llmcache.client.wrapping import from_provider
    from llmcache.decorators.decorator import cached
    from llmcache.doors.wrapping import wrap
    from llmcache.exceptions import (
        CacheMiss,
        InvalidArgument,
        LLMCacheError,
        UncacheableRequest,
        UnsupportedEventLoop,
    )
    from llmcache.http.clients import async_http_client, http_client, http_transport
    from llmcache.http.wishes import headers
    from llmcache.outcomes import capture
    from llmcache.policy import override
    from llmcache.reasons import ReasonCode
    from llmcache.removal.invalidate import ainvalidate, invalidate
    from llmcache.usage.buffer import aflush, flush

__version__ = "0.2.0"

_ERRORS = (
    *("CacheMiss", "InvalidArgument", "LLMCacheError", "UncacheableRequest"),
    "UnsupportedEventLoop",
)
_NAMES = {
    "adapter": ["DjangoCache"],
    "client.inspection": ["aexplain", "explain", "key_for"],
    "client.many.answering": ["acreate_many", "create_many"],
    "client.wrapping": ["from_provider"],
    "decorators.decorator": ["cached"],
    "doors.wrapping": ["wrap"],
    "exceptions": _ERRORS,
    "http.clients": ["async_http_client", "http_client", "http_transport"],
    "http.wishes": ["headers"],
    "outcomes": ["capture"],
    "policy": ["override"],
    "reasons": ["ReasonCode"],
    "removal.invalidate": ["ainvalidate", "invalidate"],
    "usage.buffer": ["aflush", "flush"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CacheMiss",
    "DjangoCache",
    "InvalidArgument",
    "LLMCacheError",
    "ReasonCode",
    "UncacheableRequest",
    "UnsupportedEventLoop",
    "acreate_many",
    "aexplain",
    "aflush",
    "ainvalidate",
    "async_http_client",
    "cached",
    "capture",
    "create_many",
    "explain",
    "flush",
    "from_provider",
    "headers",
    "http_client",
    "http_transport",
    "invalidate",
    "key_for",
    "override",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
