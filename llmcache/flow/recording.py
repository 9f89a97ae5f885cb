"""What has passed of a stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llmcache.conf import settings
from llmcache.flow.steps import NotRestorable
from llmcache.reasons import ReasonCode
from llmcache.result import Result


class Recording:
    """What has passed of a stream, encoded.

    An item is encoded before the caller gets it, who may change it. Once there is one that cannot
    be kept, or more than `MAX_ENTRY_BYTES`, nothing is held any more: a stream may have no end.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._items: Result[list[bytes]] = Result([])
        self._size = 0

    def add(self, item: Any) -> None:
        """Note `item`. Raises nothing: see `items`."""
        if self._items.error is None:
            self._items = Result.of(partial(self._appended, item))

    def items(self) -> list[bytes]:
        """All items. Raises what went wrong with the first that cannot be kept."""
        return self._items.unwrap()

    def _appended(self, item: Any) -> list[bytes]:
        items, encoded = self.items(), self._encode(item)
        items.append(encoded)
        self._size += len(encoded)
        if self._size > settings.max_entry_bytes:
            raise NotRestorable(ReasonCode.TOO_LARGE())
        return items
