"""Holders of leases who have gone silent: nobody has renewed theirs for too long."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from llmcache.background.forks import now_and_in_children
from llmcache.conf import settings

# So many are remembered that were seen in the hands of others.
MOST_WATCHED: Final = 1000


def is_silent(key: str, sign: object) -> bool:
    """Whether the lease for `key` has been seen with the same `sign` of its holder for too long."""
    now, longest = time.monotonic(), settings.lease_seconds
    with _watching:
        seen, since = _watched.pop(key, (None, now))
        _watched[key] = sign, since if seen == sign else now
        if len(_watched) > MOST_WATCHED:
            _watched.popitem(last=False)
        return seen == sign and now - since > longest


def _start_anew() -> None:
    """At the start, and in a forked child, whose lock may be held by a thread that is not there."""
    global _watched, _watching
    _watched, _watching = OrderedDict(), threading.Lock()


_watched: OrderedDict[str, tuple[object, float]]
_watching: threading.Lock
now_and_in_children(_start_anew)
