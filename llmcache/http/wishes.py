"""What a call asks of the cache, by a header that tells nobody else.

The header holds a token, which means something in this process only. The transport takes it out
before anything is sent; where there is none, a provider learns nothing from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final

from llmcache.background import forks
from llmcache.policy import READERS, TTL, UNSET, ModeName, Seconds, Unset

HEADER: Final = "x-llmcache"
# So many different wishes are remembered; then the oldest go.
MOST_WISHES: Final = 10_000

Wishes = tuple[tuple[str, Any], ...]

_lock: Final = forks.lock()
_tokens: Final[dict[Wishes, str]] = {}
_wishes: Final[dict[str, Wishes]] = {}


def headers(
    *,
    mode: ModeName | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] | Unset = UNSET,
    namespace: str | Unset = UNSET,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    sample: int | Unset = UNSET,
) -> dict[str, str]:
    """Headers for one call of an SDK: ``create(..., extra_headers=llmcache.headers(ttl=60))``.

    They are for a client that `wrap`, `http_client` or `http_transport` made, which takes them out
    before anything is sent. Make them for each call, in the process that makes it.

    Args:
        mode: a cache mode of the Fetch standard, as in ``cache_mode``.
        ttl: how long the answer stays fresh: seconds, a `timedelta`, or None for ever.
        tags: labels to add.
        namespace: the namespace to read and write.
        stale_while_revalidate: how long after its expiry an answer is served while a new one is
            fetched: seconds or a `timedelta`.
        stale_if_error: how long after its expiry an answer is served when the provider fails.
        sample: which of several answers to one question: 0, 1, 2, ...

    Returns:
        A dictionary with one header.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    given = {name: value for name, value in locals().items() if value is not UNSET}
    wishes = tuple((name, READERS[name](value, name)) for name, value in sorted(given.items()))
    with _lock:
        token = _tokens.get(wishes)
        if token is None:
            if len(_tokens) >= MOST_WISHES:
                del _wishes[_tokens.pop(next(iter(_tokens)))]
            token = _tokens[wishes] = secrets.token_hex(16)
            _wishes[token] = wishes
    return {HEADER: token}


def wishes_of(token: str) -> dict[str, Any] | None:
    """What was said to `headers`; None for a token that is not known here."""
    wishes = _wishes.get(token)
    return None if wishes is None else dict(wishes)
