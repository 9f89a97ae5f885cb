"""What has passed of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmcache.conf import settings
from llmcache.flow.steps import NotRestorable
from llmcache.reasons import ReasonCode


class Recording:
    """What has passed of a stream, encoded.

    An item is encoded before the caller gets it, who may change it. Once there is one that cannot
    be kept, or more than `MAX_ENTRY_BYTES`, nothing is held any more: a stream may have no end.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._items: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None

    def add(self, item: Any) -> None:
        """Note `item`. Raises nothing: see `items`."""
        if self._failure is None:
            try:
                self._keep(self._encode(item))
            except Exception as error:  # noqa: BLE001 - raised when all have passed
                self._failure = error
                self._items.clear()

    def items(self) -> list[bytes]:
        """All items. Raises what went wrong with the first that cannot be kept."""
        if self._failure is not None:
            raise self._failure
        return self._items

    def _keep(self, encoded: bytes) -> None:
        self._items.append(encoded)
        self._size += len(encoded)
        if self._size > settings.max_entry_bytes:
            raise NotRestorable(ReasonCode.TOO_LARGE())
