"""What all ways in share to rebuild the request of a stored entry from its row.

What the row does not have are credentials, and no row decides where they are sent: what asks is a
client of this process that sends its requests there, and is of the same namespace.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from llmcache.background import database
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.exceptions import CorruptEntry, LLMCacheError
from llmcache.policy import CacheMode, Policy

if TYPE_CHECKING:
    from llmcache.models import CacheEntry


#: The mode of entries that came over HTTP, as rows have it.
HTTP: Final = "http"


class NotRebuildable(LLMCacheError):
    """The request of an entry cannot be asked again from here; the message says why."""

    is_without_content = True


def described_in(entry: CacheEntry) -> dict[str, Any]:
    """The stored request: its messages, parameters and more. Raises `NotRebuildable`."""
    if entry.request is None:
        raise NotRebuildable("its request is not stored (LLMCACHE['STORE_REQUESTS'])")
    try:
        described = json.loads(unseal(REQUEST, entry.key, bytes(entry.request)).body)
    except (CorruptEntry, ValueError) as error:
        raise NotRebuildable(f"its stored request cannot be read ({error})") from None
    if not isinstance(described, dict) or not isinstance(described.get("parameters"), dict):
        raise NotRebuildable("its stored request is not as it was sent")
    return described


def body_of(described: dict[str, Any]) -> dict[str, Any]:
    """The body that was sent over HTTP but for its model, and which of several answers it wants."""
    messages = described.get("messages")
    conversation = messages if isinstance(messages, dict) else {"messages": messages}
    return {**conversation, **described["parameters"]}


def policy_of(entry: CacheEntry) -> Policy:
    """To ask anew, with the tags, time to live and stale window of the entry."""
    ttl = stale = None
    if entry.expires_at is not None:
        kept = (entry.stale_until or entry.expires_at) - entry.expires_at
        stale = max(kept.total_seconds(), 0.0)
        # The time to live counts from the answer, and `created_at` is when it was asked for.
        lived = (entry.expires_at - entry.created_at).total_seconds()
        ttl = max(lived - (entry.latency or 0.0), 1.0)
    tags = database.run(lambda: frozenset(entry.tags.values_list("tag", flat=True)))
    return Policy(
        mode=CacheMode.RELOAD,
        ttl=ttl,
        tags=tags,
        stale_while_revalidate=stale or 0.0,
        stale_if_error=stale or 0.0,
        is_spread=False,  # it is already: from a part left out, no second one is
    )
