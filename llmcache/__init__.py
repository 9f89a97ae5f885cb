"""llmcache: a reusable Django app that remembers what language models answered.

This is the public API. Everything is imported when it is first used, so that ``import llmcache``
is safe anywhere and costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache.adapter import DjangoCache
    from llmcache.client import (
        acreate_many,
        aexplain,
        create_many,
        explain,
        from_provider,
        key_for,
        wrap,
    )
    from llmcache.decorators import cached
    from llmcache.exceptions import (
        CacheMiss,
        InvalidArgument,
        LLMCacheError,
        UncacheableRequest,
        UnsupportedEventLoop,
    )
    from llmcache.outcomes import capture
    from llmcache.policy import override
    from llmcache.reasons import ReasonCode
    from llmcache.removal.invalidate import ainvalidate, invalidate
    from llmcache.usage.buffer import aflush, flush

__version__ = "0.2.0"

_HOMES = {
    "DjangoCache": "adapter",
    "acreate_many": "client",
    "aexplain": "client",
    "aflush": "usage.buffer",
    "flush": "usage.buffer",
    "create_many": "client",
    "explain": "client",
    "from_provider": "client",
    "key_for": "client",
    "wrap": "client",
    "cached": "decorators",
    "CacheMiss": "exceptions",
    "InvalidArgument": "exceptions",
    "LLMCacheError": "exceptions",
    "UncacheableRequest": "exceptions",
    "UnsupportedEventLoop": "exceptions",
    "ainvalidate": "removal.invalidate",
    "invalidate": "removal.invalidate",
    "capture": "outcomes",
    "override": "policy",
    "ReasonCode": "reasons",
}

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
    "cached",
    "capture",
    "create_many",
    "explain",
    "flush",
    "from_provider",
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
