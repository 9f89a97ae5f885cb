"""What the tiers give and take: an entry that was found, that none was, and one to be stored.

An entry is made of one call: the answer and the request, sealed, and what is known about them.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.codec.redaction import redacted
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.policy import UNSET, Policy
from llmcache.reasons import Reason

if TYPE_CHECKING:
    from llmcache.codec.answers import StoredAnswer
    from llmcache.keys.request import CanonicalRequest
    from llmcache.outcomes import Call, Inside, Receipt

# Of a time to live of a minute or more, at most this share is left out.
JITTER: Final = 0.05
JITTER_FROM: Final = 60.0


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be stored: the sealed payload and what is known about it.

    Times are seconds since the epoch; `expires` None: never; `stale_until` None: with it. Texts may
    be of any length and hold anything; they are made to fit.
    """

    key: str
    namespace: str
    payload: bytes
    created: float
    expires: float | None = None
    tags: frozenset[str] = frozenset()
    request: bytes | None = None
    provider: str = ""
    endpoint: str = ""
    model: str = ""
    mode: str = ""
    response_model: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None
    latency: float | None = None
    stale_until: float | None = None
    #: What it was made of: the keys, and when each was asked for; 0 where no row is expected.
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """An entry that was found, and which tier had it.

    `created` (when it was asked for) and `expires` in seconds since the epoch; `stale_for`: how
    many seconds ago it expired, 0 while it is fresh.
    """

    body: bytes
    tier: Tier
    expires: float | None
    stale_for: float = 0.0
    created: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.stale_for


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing that may be served; `reasons` tell of trouble, and are none for a plain miss.

    Where the rows were asked, `looked` is when (`time.monotonic`), and `generation` what
    `late_answers.generation` said then.
    """

    reasons: tuple[Reason, ...] = ()
    looked: float = field(default=0.0, compare=False)
    generation: int | None = field(default=None, compare=False)


def expiry(ttl: float | None, *, is_spread: bool = True) -> float | None:
    """When what is stored now expires (seconds since the epoch); None: never.

    What was stored together would expire together, and be asked for anew all at once. So of a time
    to live of a minute or more, up to a twentieth is left out at random; it is never longer than
    was asked for. `is_spread`: False for a time to live from which that was left out already.
    """
    if ttl is None:
        return None
    share = random.uniform(0, JITTER) if is_spread and ttl >= JITTER_FROM else 0.0  # noqa: S311 - no secret
    return time.time() + ttl * (1 - share)


def describe(request: dict[str, Any]) -> bytes | None:
    """`request` as JSON, for people to read; None when it is not to be stored.

    Raises whatever the redactor of ``LLMCACHE["STORE_REQUESTS"]`` raises.
    """
    wish = settings.store_requests
    if wish == "digest":
        return None
    readable = _to_json(request)
    redactor = redacted if wish == "redacted" else wish
    return _to_json(redactor(json.loads(readable))) if callable(redactor) else readable


def make_draft(
    call: Call,
    policy: Policy,
    canonical: CanonicalRequest | None,
    stored: StoredAnswer,
    described: bytes | None,
    receipt: Receipt,
    *,
    asked: float,
    inside: Inside | None = None,
    **facts: Any,
) -> Draft:
    """The entry of `call`, asked at `asked` (seconds since the epoch) and fresh from now on.

    `receipt`: what the answer took; `inside`: the calls that it was made of. `facts` are the other
    fields of `Draft`, by name.
    """
    stored, took = replace(stored, receipt=receipt.pack()), receipt.microseconds
    key, expires = call.key, expiry(policy.ttl_seconds, is_spread=policy.is_spread)
    # It is no fresher than what it was made of, unless somebody has said how long it stays so.
    if inside and policy.ttl is UNSET:
        expires = min(filter(None, (expires, inside.expires())), default=None)
    stale_for = max(policy.revalidate_seconds, policy.if_error_seconds)
    return Draft(
        key=key,
        namespace=call.namespace,
        payload=seal(ANSWER, key, stored.pack(), created=asked, expires=expires),
        request=described and seal(REQUEST, key, described, created=asked, expires=expires),
        created=asked,
        expires=expires,
        stale_until=None if expires is None else expires + stale_for,
        provider=call.provider,
        model=call.model,
        response_model=call.response_model,
        input_tokens=receipt.input_tokens,
        output_tokens=receipt.output_tokens,
        cost=receipt.cost,
        latency=None if took is None else took / 1_000_000,
        digests=canonical.digests() if canonical else {},
        parts=inside.parts() if inside else {},
        **{"tags": policy.tags, **facts},
    )


def _to_json(value: Any) -> bytes:
    return to_json(value, by_alias=True, bytes_mode="base64", serialize_unknown=True)
