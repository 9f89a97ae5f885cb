"""`DjangoCache`: llmcache's store behind instructor's own cache interface.

For code that is built on ``instructor.from_provider(..., cache=...)``. `llmcache.from_provider`
does more: the adapter is handed a hash and JSON, so it can neither tell what was asked nor check
an answer, and instructor calls it synchronously even from its asynchronous client.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import Any, Final

from instructor.cache import BaseCache

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, seal
from llmcache.policy import TTL, UNSET, Policy, Unset, read_ttl
from llmcache.store import entries
from llmcache.store.durable import Draft
from llmcache.store.entries import Found

logger = logging.getLogger("llmcache")

# What is known of the provider of such an entry.
PROVIDER: Final = "instructor"


class DjangoCache(BaseCache):
    """A cache for ``instructor.from_provider(..., cache=DjangoCache(), cache_namespace="...")``.

    Without ``cache_namespace`` instructor makes up one for each client, and nothing is shared.

    Args:
        namespace: the namespace of the entries. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh when the call names no ``cache_ttl``: seconds, a
            `timedelta`, or None for ever. Default: ``LLMCACHE["TTL"]``.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """

    def __init__(self, namespace: str | Unset = UNSET, ttl: TTL | Unset = UNSET) -> None:
        self._policy = Policy().changed(namespace=namespace, ttl=ttl)

    def get(self, key: str) -> Any | None:
        """What was stored under instructor's key; None for a miss or for trouble."""
        try:
            found = entries.lookup(self._key(key))
            return _value(found) if isinstance(found, Found) else None
        except Exception as error:  # noqa: BLE001 - a miss, whatever it is
            logger.warning("llmcache: DjangoCache could not read: %r", error)
            return None

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        """Store what instructor made of an answer. Never raises: the answer was paid for."""
        try:
            seconds = self._policy.ttl_seconds if ttl is None else read_ttl(ttl)
            if seconds != 0:
                refusal = entries.save(self._draft(key, value, seconds))
                if refusal:
                    logger.warning("llmcache: DjangoCache did not store: %s", refusal)
        except Exception as error:  # noqa: BLE001 - as the docstring says
            logger.warning("llmcache: DjangoCache could not store: %r", error)

    def _key(self, key: str) -> str:
        # Of our own: an entry of the adapter is never taken for one of the client.
        namespace = self._policy.namespace_name.encode()
        content = b"llmcache adapter %d:%b%b" % (len(namespace), namespace, key.encode())
        return hashlib.sha256(content).hexdigest()

    def _draft(self, key: str, value: str, ttl: float | None) -> Draft:
        own_key, now = self._key(key), time.time()
        expires = None if ttl is None else now + ttl
        stored = _stored(value)
        completion = json.loads(stored.completion.data) if stored.completion else {}
        usage = completion.get("usage") or {}
        return Draft(
            key=own_key,
            namespace=self._policy.namespace_name,
            payload=seal(ANSWER, own_key, stored.pack(), created=now, expires=expires),
            created=now,
            expires=expires,
            provider=PROVIDER,
            model=str(completion.get("model") or ""),
            input_tokens=usage.get("prompt_tokens", usage.get("input_tokens")),
            output_tokens=usage.get("completion_tokens", usage.get("output_tokens")),
        )


def _stored(value: str) -> StoredAnswer:
    """Instructor's JSON around two JSON texts, taken apart, so that people can read the entry."""
    parts = json.loads(value)
    raw = parts["raw"]
    return StoredAnswer(
        parts["model"].encode(), None if raw is None else Dumped(PROVIDER, raw.encode())
    )


def _value(found: Found) -> str:
    stored = StoredAnswer.unpack(found.body)
    raw = None if stored.completion is None else stored.completion.data.decode()
    return json.dumps({"model": stored.answer.decode(), "raw": raw})
