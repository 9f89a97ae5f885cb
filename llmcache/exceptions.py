"""Every error that llmcache raises on purpose. Each says the way out in its message.

None of them ever replaces an answer: they are raised for arguments that cannot be meant, or
because the caller asked for an error (``cache_mode="only-if-cached"``).
"""


class LLMCacheError(Exception):
    """The root of all errors of llmcache."""


class InvalidArgument(LLMCacheError, ValueError):
    """An argument has a value that cannot be meant. Raised before the model is asked."""


class InvalidArgumentType(InvalidArgument, TypeError):
    """An argument has a type that cannot be meant. Raised before the model is asked."""


class UncacheableRequest(LLMCacheError):
    """A part of the request has no canonical form, so the request has no key.

    A call with such a request is answered by the model, with outcome ``bypass``; only
    `llmcache.key_for` raises this.
    """

    def __init__(self, part: str, why: str) -> None:
        super().__init__(part, why)
        self.part = part
        self.why = why

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
