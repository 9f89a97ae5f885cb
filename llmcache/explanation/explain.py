"""Why a call would hit or miss: what a lookup would find, without serving or counting it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from llmcache.background import database
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.exceptions import CorruptEntry
from llmcache.explanation.comparison import (
    Comparison,
    Subject,
    at,
    compared_to_nearest,
    subject_of,
)
from llmcache.explanation.diff import printable
from llmcache.outcomes import Outcome, Tier
from llmcache.policy import CacheMode, Policy
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience.failsafe import failing_safe
from llmcache.store import local
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import columns
from llmcache.store.rows import tier as durable

if TYPE_CHECKING:
    from llmcache.models import CacheEntry

# Seconds: hardly stale, and yet not fresh.
LEAST: Final = 1e-9
NOT_STORED: Final = "nothing is stored under this key"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a call would be answered from the store, or would not. ``str()`` makes a text of it.

    `outcome` is what the call would have: ``hit``, ``miss``, ``reload`` or ``bypass``; ``stale``
    when the entry has expired and is not removed yet, so that only ``force-cache`` serves it.
    `tier` is where the entry is, and `reason` says it in words. `parts` are the SHA-256 of each
    part of the key; empty, as `key` is, for a request without one. `nearest` is, for a miss, the
    stored entry that differs in the fewest parts.
    """

    outcome: Outcome
    tier: Tier | None
    reason: str
    key: str
    namespace: str
    model: str
    parts: Mapping[str, str] = field(default_factory=dict)
    nearest: Comparison | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.outcome}: {printable(self.reason)}",
            f"  key         {self.key or '-'}",
            f"  namespace   {printable(self.namespace)}",
            f"  model       {printable(self.model)}",
        ]
        differing = self.nearest.differing if self.nearest else ()
        if self.parts:
            lines.append("\nparts" + (" (* differs from the nearest entry)" if differing else ""))
        for part, digest in self.parts.items():
            mark = "*" if part in differing else " "
            lines.append(f"{mark} {printable(part):<11} {printable(digest)}")
        if self.nearest is not None:
            lines.append(f"\nnearest entry {self.nearest}")
        return "\n".join(lines)


def explain_call(
    subject: Subject,
    *,
    policy: Policy,
    bypass: Reason | None = None,
    restore: Callable[[Found], Any] | None = None,
) -> Explanation:
    """What would come of a call, and why. The model is not asked, and no hit is counted.

    `bypass` says why the call cannot be cached; `restore` is tried on what is found, as a call
    would, and raises when that does not validate.
    """
    explained = _explaining(subject)
    if policy.mode is CacheMode.NO_STORE:
        bypass = ReasonCode.NO_STORE()
    if bypass is not None:
        return explained(Outcome.BYPASS, None, bypass.text)
    if not policy.mode.reads:
        return explained(Outcome.RELOAD, None, f'cache_mode is "{policy.mode}"')
    outcome, tier, reason = _judge(stored(subject.key), policy.mode, restore)
    if outcome is Outcome.HIT:
        return explained(outcome, tier, reason)
    if policy.mode is CacheMode.ONLY_IF_CACHED:
        reason += '; CacheMiss would be raised: cache_mode is "only-if-cached"'
    elif refusal := _why_not_stored(policy):
        reason += f"; nor would the answer be stored: {refusal}"
    neighbour = None
    if outcome is Outcome.MISS:
        # (of the same namespace: of others, a caller learns nothing)
        with failing_safe(Tier.DURABLE, "read"):
            neighbour = database.run(partial(compared_to_nearest, subject))
    return explained(outcome, tier, reason, nearest=neighbour)


def explain_entry(entry: CacheEntry) -> Explanation:
    """Whether the call that stored `entry` would hit; without the nearest entry."""
    return _explaining(subject_of(entry))(*_judge(stored(entry.key)))


def _explaining(subject: Subject) -> Callable[..., Explanation]:
    return partial(
        Explanation,
        key=subject.key,
        namespace=subject.namespace,
        model=subject.model,
        parts=subject.digests,
    )


def stored(key: str) -> Found | Missing:
    """What `llmcache.store.lookups.lookup` would find, and what it would if that were fresh.

    Nothing is counted, promoted or reported as refused.
    """
    copy = local.get(key) if local.snapshot() else None
    if copy is not None:
        return copy
    troubles: list[Reason] = []
    with failing_safe(Tier.HOT, "read", troubles):
        found = _found(key, hot.read(key), Tier.HOT, troubles)
        if found is not None and found.fresh:
            return found
    with failing_safe(Tier.DURABLE, "read", troubles):
        data, _ = database.run(partial(durable.read, key))
        expired = data is None
        if expired:
            data, _ = database.run(partial(durable.read, key, expired_too=True))
        found = _found(key, data, Tier.DURABLE, troubles, expired=expired)
        if found is not None:
            return found
    return Missing(tuple(troubles))


def find(beginning: str, limit: int) -> list[CacheEntry]:
    """At most `limit` entries whose keys begin so (hex digits), without what is large of them."""
    first = beginning.lower()
    # As a range, which every database finds by the index. "g" comes after "f".
    rows = durable.entries().filter(key__gte=first, key__lt=f"{first}g")
    return list(rows.defer("payload", "request").order_by("key")[:limit])


def _judge(
    found: Found | Missing,
    mode: CacheMode = CacheMode.DEFAULT,
    restore: Callable[[Found], Any] | None = None,
) -> tuple[Outcome, Tier | None, str]:
    if isinstance(found, Missing):
        return Outcome.MISS, None, "; ".join(map(str, found.reasons)) or NOT_STORED
    entry = f"entry in the {found.tier} tier"
    try:
        if restore is not None:
            restore(found)
    except Exception as error:  # noqa: BLE001 - a validator may raise anything
        why = f"the {entry} does not validate any more ({type(error).__name__})"
        return Outcome.MISS, None, why
    if found.fresh:
        return Outcome.HIT, found.tier, f"a fresh entry is in the {found.tier} tier"
    when = "" if found.expires is None else f" at {at(columns.moment(found.expires))}"
    reason = f"the {entry} has expired{when}"
    if mode is CacheMode.FORCE_CACHE:
        reason += ', and cache_mode "force-cache" serves it'
    return Outcome.STALE, found.tier, reason


def _why_not_stored(policy: Policy) -> Reason | None:
    try:
        return ReasonCode.NO_TTL() if policy.ttl_seconds == 0 else None
    except ImproperlyConfigured as error:
        return ReasonCode.WRONG_SETTING(why=error)


def _found(
    key: str, data: bytes | None, tier: Tier, troubles: list[Reason], *, expired: bool = False
) -> Found | None:
    if data is None:
        return None
    try:
        envelope = unseal(ANSWER, key, data)
    except CorruptEntry as error:
        troubles.append(ReasonCode.BAD_ENTRY(tier=tier, why=error))
        return None
    now = time.time()
    stale_for = max(0.0, now - (now if envelope.expires is None else envelope.expires))
    # By the clock of the database it may have expired already.
    return Found(envelope.body, tier, envelope.expires, stale_for or (LEAST if expired else 0.0))
