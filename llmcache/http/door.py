"""What was said of an HTTP client when it was made."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Final

from llmcache.policy import Policy

# So many endpoints of one client are remembered.
MOST_SEEN: Final = 100


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Door:
    """The way in through one transport.

    `inner` is the transport that asks. `retries`: how often the SDK tries again, so that a stale
    answer is served where it would give up; None: it is not known, and none is. `is_paced`: streams
    are replayed at the pace at which they came.
    """

    inner: Any
    policy: Policy
    exclude: frozenset[str] = frozenset()
    retries: int | None = None
    is_paced: bool = False
    # The client that was wrapped: once it is dropped, it closes the connections.
    owner: Any = field(default=None, repr=False)
    # What was asked last, by namespace and endpoint, but for its body: its headers have
    # credentials, which are kept nowhere else.
    seen: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)

    def remember(self, namespace: str, endpoint: str, sent: Any) -> None:
        if len(self.seen) >= MOST_SEEN:
            self.seen.clear()
        seen = object.__new__(type(sent))
        told = {name: getattr(sent, name) for name in ("method", "url", "headers", "extensions")}
        vars(seen).update(told)
        self.seen[namespace, endpoint] = seen


def library_of(request: Any) -> Any:
    """httpx or httpx2: the library that a request is of."""
    return sys.modules[type(request).__module__.partition(".")[0]]
