"""What is written of one call: the answer and the request, sealed, and what is known about them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.conf import settings
from llmcache.store.durable import Draft

if TYPE_CHECKING:
    from llmcache.codec.answers import StoredAnswer
    from llmcache.keys import CanonicalRequest
    from llmcache.outcomes import Call
    from llmcache.policy import Policy


def describe(request: dict[str, Any]) -> bytes | None:
    """`request` as JSON, for people to read; None when it is not to be stored.

    Raises whatever the redactor of ``LLMCACHE["STORE_REQUESTS"]`` raises.
    """
    wish = settings.store_requests
    if wish == "digest":
        return None
    readable = _to_json(request)
    return _to_json(wish(json.loads(readable))) if callable(wish) else readable


def make_draft(
    call: Call,
    policy: Policy,
    canonical: CanonicalRequest,
    stored: StoredAnswer,
    described: bytes | None,
    *,
    asked: float,
    **facts: Any,
) -> Draft:
    """The entry of `call`, asked at `asked` (seconds since the epoch) and fresh from now on.

    `facts` are the other fields of `Draft`, by name.
    """
    ttl, key = policy.ttl_seconds, call.key
    expires = None if ttl is None else time.time() + ttl
    return Draft(
        key=key,
        namespace=call.namespace,
        payload=seal(ANSWER, key, stored.pack(), created=asked, expires=expires),
        request=described and seal(REQUEST, key, described, created=asked, expires=expires),
        created=asked,
        expires=expires,
        model=call.model,
        digests=canonical.digests(),
        **{"tags": policy.tags, **facts},
    )


def count_tokens(completion: Any) -> tuple[int | None, int | None]:
    """Input and output tokens of a provider's response, by the names of OpenAI and of Anthropic."""
    usage = getattr(completion, "usage", None)
    counts = [
        next((n for name in names if isinstance(n := getattr(usage, name, None), int)), None)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    ]
    return counts[0], counts[1]


def _to_json(value: Any) -> bytes:
    return to_json(value, by_alias=True, bytes_mode="base64", serialize_unknown=True)
