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
from dataclasses import dataclass, replace
from typing import Any, Final

from instructor.cache import BaseCache

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, seal
from llmcache.outcomes import Call, Outcome, Receipt, Tier
from llmcache.policy import TTL, UNSET, Policy, Unset, read_ttl
from llmcache.pricing import receipt
from llmcache.store import entries, ledger
from llmcache.store.drafts import expiry
from llmcache.store.durable import Draft
from llmcache.store.entries import Found

logger = logging.getLogger("llmcache")

# What is known of the provider of such an entry.
PROVIDER: Final = "instructor"
# So many questions are remembered that instructor has asked and not answered yet.
MOST_ASKING: Final = 10_000


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
        # The questions that instructor has asked, by key.
        self._asking: dict[str, _Asked] = {}

    def get(self, key: str) -> Any | None:
        """What was stored under instructor's key; None for a miss or for trouble."""
        started = time.perf_counter()
        try:
            own_key = self._key(key)
            found = entries.lookup(own_key)
            if not isinstance(found, Found):
                self._note_asking(own_key)
                return None
            stored = StoredAnswer.unpack(found.body)
            self._record_hit(own_key, found.tier, stored, started)
            return _value(stored)
        except Exception as error:  # noqa: BLE001 - a miss, whatever it is
            logger.warning("llmcache: DjangoCache could not read: %r", error)
            return None

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        """Store what instructor made of an answer. Never raises: the answer was paid for."""
        try:
            seconds = self._policy.ttl_seconds if ttl is None else read_ttl(ttl)
            if seconds != 0:
                self._save(self._key(key), value, seconds)
        except Exception as error:  # noqa: BLE001 - as the docstring says
            logger.warning("llmcache: DjangoCache could not store: %r", error)

    def _note_asking(self, key: str) -> None:
        """Instructor asks the model now: what is invalidated meanwhile is not to be stored."""
        if len(self._asking) >= MOST_ASKING:
            self._asking.clear()  # (most of them failed; the others go by the clock)
        self._asking[key] = _Asked(entries.generation(), time.perf_counter())

    def _record_hit(self, key: str, tier: Tier, stored: StoredAnswer, started: float) -> None:
        call = self._call(key, _completion(stored))
        call.outcome, call.tier, call.receipt = Outcome.HIT, tier, stored.receipt
        ledger.record(call, started)

    def _save(self, key: str, value: str, ttl: float | None) -> None:
        """Store an answer. Only now is it known what was asked, so the miss is told only now."""
        asked = self._asking.pop(key, None) or _Asked(None, time.perf_counter())
        stored = _stored(value)
        completion = _completion(stored)
        call = self._call(key, completion)
        call.spent = receipt(completion, provider=PROVIDER, seconds=asked.ago)
        draft = self._draft(call, stored, call.spent, ttl)
        refusal = entries.save(draft, asked.generation)
        if refusal:
            logger.warning("llmcache: DjangoCache did not store: %s", refusal)
        call.reason, call.stored = refusal or "", not refusal
        call.size = len(draft.payload) if call.stored else 0
        ledger.record(call, asked.started)

    def _call(self, key: str, completion: dict[str, Any]) -> Call:
        return Call(
            key=key,
            namespace=self._policy.namespace_name,
            provider=PROVIDER,
            model=str(completion.get("model") or ""),
        )

    def _key(self, key: str) -> str:
        # Of our own: an entry of the adapter is never taken for one of the client.
        namespace = self._policy.namespace_name.encode()
        content = b"llmcache adapter %d:%b%b" % (len(namespace), namespace, key.encode())
        return hashlib.sha256(content).hexdigest()

    def _draft(self, call: Call, stored: StoredAnswer, took: Receipt, ttl: float | None) -> Draft:
        now, expires = time.time(), expiry(ttl)
        body = replace(stored, receipt=took.pack()).pack()
        return Draft(
            key=call.key,
            namespace=call.namespace,
            payload=seal(ANSWER, call.key, body, created=now, expires=expires),
            created=now,
            expires=expires,
            provider=call.provider,
            model=call.model,
            input_tokens=took.input_tokens,
            output_tokens=took.output_tokens,
            cost=took.cost,
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """When a question was asked: its generation (see `llmcache.store.late`), and the moment."""

    generation: int | None
    started: float

    @property
    def ago(self) -> float:
        return time.perf_counter() - self.started


def _stored(value: str) -> StoredAnswer:
    """Instructor's JSON around two JSON texts, taken apart, so that people can read the entry."""
    parts = json.loads(value)
    raw = parts["raw"]
    return StoredAnswer(
        parts["model"].encode(), None if raw is None else Dumped(PROVIDER, raw.encode())
    )


def _completion(stored: StoredAnswer) -> dict[str, Any]:
    """The provider's response; empty where there is none."""
    completion = json.loads(stored.completion.data) if stored.completion else None
    return completion if isinstance(completion, dict) else {}


def _value(stored: StoredAnswer) -> str:
    raw = None if stored.completion is None else stored.completion.data.decode()
    return json.dumps({"model": stored.answer.decode(), "raw": raw})
