"""Every error that llmcache raises on purpose. Each says the way out in its message.

None of them ever replaces an answer: they are raised for arguments that cannot be meant, or
because the caller asked for an error (``cache_mode="only-if-cached"``).

Errors of others are written down by `llmcache.discretion`: their texts may hold a prompt.
"""

from __future__ import annotations

from typing import ClassVar

from llmcache.reasons import Reason, ReasonCode


class LLMCacheError(Exception):
    """The root of all errors of llmcache."""

    #: Whether the text is made of rules and names alone, so that it may be written down.
    is_without_content: ClassVar[bool] = False


class InvalidArgument(LLMCacheError, ValueError):
    """An argument has a value that cannot be meant. Raised before the model is asked."""

    #: Of many requests, the number of the one that it is about.
    number: int | None = None

    def __str__(self) -> str:
        said = super().__str__()
        return said if self.number is None else f"requests[{self.number}]: {said}"


class InvalidArgumentType(InvalidArgument, TypeError):
    """An argument has a type that cannot be meant. Raised before the model is asked."""


class UnsupportedEventLoop(LLMCacheError, RuntimeError):
    """A coroutine of llmcache runs on another event loop than asyncio's, such as trio's.

    Raised before anybody is asked.
    """

    is_without_content = True

    def __init__(self) -> None:
        super().__init__(
            "Coroutines of llmcache run on event loops of asyncio (as uvloop's), and here is none. "
            "Under trio, ask a synchronous client: await trio.to_thread.run_sync(...)."
        )


class UncacheableRequest(LLMCacheError):
    """A part of the request has no canonical form, so the request has no key.

    A call with such a request is answered by the model, with outcome ``bypass``; only
    `llmcache.key_for` raises this.
    """

    def __init__(
        self, part: str, why: str, code: ReasonCode = ReasonCode.NO_CANONICAL_FORM
    ) -> None:
        super().__init__(part, why, code)
        self.part = part
        self.why = why
        self.code = code

    @property
    def reason(self) -> Reason:
        """Why the call is a bypass."""
        return self.code(part=self.part, why=self.why)

    def __str__(self) -> str:
        return f"{self.part}: {self.why}"


class CacheMiss(LLMCacheError, LookupError):
    """There is no stored answer, and ``cache_mode="only-if-cached"`` forbids to ask the model."""

    def __init__(self, key: str, namespace: str, reason: str) -> None:
        super().__init__(key, namespace, reason)
        self.key = key
        self.namespace = namespace
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"No stored answer for key {self.key or '-'} in namespace {self.namespace!r} "
            f'({self.reason}), and the cache mode "only-if-cached" forbids to ask the model. Call '
            'once with the mode "default" or "reload" to store one.'
        )


class CorruptEntry(LLMCacheError):
    """Stored bytes are damaged, tampered with, of another key, or of another format."""

    is_without_content = True
