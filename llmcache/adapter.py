"""`DjangoCache`: llmcache's store behind instructor's own cache interface.

For code that is built on ``instructor.from_provider(..., cache=...)``. `llmcache.from_provider`
does more: the adapter is handed a hash and JSON, so it can neither tell what was asked nor check
an answer, and instructor calls it synchronously even from its asynchronous client.

What it is handed is stored in the first of these forms in which it comes back, so that people can
read the entry:

    instructor's  JSON around two texts: the answer, and the provider's response or None
    text          as it is
    a value       as JSON; bytes in it as ``{"llmcache bytes": base64}``
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any, Final

from instructor.cache import BaseCache

from llmcache import store
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.equality import same
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.outcomes import Call, Outcome
from llmcache.policy import TTL, UNSET, CacheMode, Policy, Unset, overridden, read_ttl
from llmcache.providers.admission import why_unfinished
from llmcache.providers.pricing import receipt
from llmcache.reasons import Reason, ReasonCode
from llmcache.removal.invalidate import invalidate
from llmcache.resilience.failsafe import ends_the_task
from llmcache.store.records import Found, make_draft
from llmcache.usage import ledger

logger = logging.getLogger("llmcache")

# What is known of the provider of such an entry.
PROVIDER: Final = "instructor"
# So many questions are remembered that instructor has asked and not answered yet.
MOST_ASKING: Final = 10_000

# The form of an entry, where the fields set of a model would be noted; none: instructor's.
TEXT: Final = b"text"
VALUE: Final = b"value"
# What takes the place of bytes.
BYTES: Final = "llmcache bytes"
UNEQUAL: Final = ReasonCode.NOT_REPRODUCIBLE(why="it would come back different")


class DjangoCache(BaseCache):
    """A cache for ``instructor.from_provider(..., cache=DjangoCache(), cache_namespace="...")``.

    Without ``cache_namespace`` instructor makes up one for each client, and nothing is shared.

    Args:
        namespace: the namespace of the entries, where neither an `override` nor the request names
            another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh when the call names no ``cache_ttl``: seconds, a
            `timedelta`, or None for ever. Default: ``LLMCACHE["TTL"]``.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """

    def __init__(self, namespace: str | Unset = UNSET, ttl: TTL | Unset = UNSET) -> None:
        self._policy = Policy().changed(namespace=namespace, ttl=ttl)
        # The questions that instructor has asked, by key: the generation then (see
        # `store.rows.late_answers`), and the moment.
        self._asking: dict[str, tuple[int | None, float]] = {}

    def get(self, key: str) -> Any | None:
        """What was stored under `key`, equal and of the same type; None: a miss, or trouble.

        Raises `InvalidArgument` where ``LLMCACHE["REQUIRE_NAMESPACE"]`` asks for a namespace.
        """
        started = time.perf_counter()
        try:
            own_key = self._key(key)
            reads = overridden(self._policy).mode.reads
            found = store.lookup(own_key) if reads else None
            if not isinstance(found, Found):
                self._record_asking(own_key)
                return None
            stored = StoredAnswer.unpack(found.body)
            value = _value(stored)
            self._record_hit(own_key, found, stored, started)
            return value
        except InvalidArgument:
            raise
        except UncacheableRequest as error:
            call = Call(provider=PROVIDER, outcome=Outcome.BYPASS)
            call.because(error.reason)
            ledger.record(call, started)
            return None
        except Exception as error:
            if ends_the_task(error):
                raise
            logger.warning("llmcache: DjangoCache could not read: %s", without_content(error))
            return None

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        """Store `value` for `ttl` seconds; None: as long as this cache was told. Never raises.

        Instructor gives text; None, bool, numbers, text, bytes, and lists and dicts of them will do
        as well. What would come back otherwise (a tuple as a list) is not stored, and what was
        under `key` is gone then.
        """
        try:
            seconds = self._policy.ttl_seconds if ttl is None else read_ttl(ttl, "cache_ttl")
            if seconds != 0 and overridden(self._policy).mode is not CacheMode.NO_STORE:
                self._save(self._key(key), value, seconds)
        except UncacheableRequest:
            return  # (`get` has told of it)
        except Exception as error:
            if ends_the_task(error):
                raise
            logger.warning("llmcache: DjangoCache could not store: %s", without_content(error))

    def _record_asking(self, key: str) -> None:
        """Instructor asks the model now: what is invalidated meanwhile is not to be stored."""
        if len(self._asking) >= MOST_ASKING:
            self._asking.clear()  # (most of them failed; the others go by the clock)
        self._asking[key] = store.generation(), time.perf_counter()

    def _record_hit(self, key: str, found: Found, stored: StoredAnswer, started: float) -> None:
        call = self._call(key, _completion(stored))
        call.outcome, call.tier, call.receipt = Outcome.HIT, found.tier, stored.receipt
        call.created, call.expires = found.created, found.expires
        ledger.record(call, started)

    def _save(self, key: str, value: Any, ttl: float | None) -> None:
        """Store an answer. Only now is it known what was asked, so the miss is told only now."""
        generation, started = self._asking.pop(key, (None, time.perf_counter()))
        in_a_form = _stored(value)
        stored = in_a_form or StoredAnswer(b"null")
        completion = _completion(stored)
        call = self._call(key, completion)
        took = receipt(completion, provider=PROVIDER, seconds=time.perf_counter() - started)
        call.spent = took
        policy = Policy(ttl=ttl, stale_while_revalidate=0.0, stale_if_error=0.0)
        draft = make_draft(call, policy, None, stored, None, took, asked=time.time())
        unfit = why_unfinished(completion) if in_a_form else UNEQUAL
        if unfit:  # (other trouble is told by who has it)
            logger.warning("llmcache: DjangoCache did not store: %s", unfit)
        refusal = unfit or store.save(draft, generation)
        if refusal is None:
            call.stored, call.size = True, len(draft.payload)
            call.created, call.expires = draft.created, draft.expires
        else:
            self._record_refusal(call, refusal)
        ledger.record(call, started)

    def _record_refusal(self, call: Call, refusal: Reason) -> None:
        is_too_large = refusal.code is ReasonCode.TOO_LARGE
        if (is_too_large or refusal is UNEQUAL) and isinstance(store.peek(call.key), Found):
            invalidate(keys=[call.key])  # (it would be taken for what was to be stored)
        call.because(refusal)
        call.spoils = not is_too_large

    def _call(self, key: str, completion: dict[str, Any]) -> Call:
        model, namespace = completion.get("model"), overridden(self._policy).namespace_name
        model = model if isinstance(model, str) else ""
        return Call(key=key, namespace=namespace, provider=PROVIDER, model=model)

    def _key(self, key: str) -> str:
        # Of our own: an entry of the adapter is never taken for one of the client.
        namespace = overridden(self._policy).namespace_name.encode()
        content = b"llmcache adapter %d:%b%b" % (len(namespace), namespace, key.encode())
        return hashlib.sha256(content).hexdigest()


def _stored(value: Any) -> StoredAnswer | None:
    """`value` in the first form in which it comes back; None where there is none."""
    for in_form in (_of_instructor, _of_text, _of_value):
        # (of any value: that is what it takes to see that it has not this form)
        with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
            stored = in_form(value)
            if same(_value(stored), value):
                return stored
    return None


def _of_instructor(text: str) -> StoredAnswer:
    parts = json.loads(text)
    raw = parts["raw"]
    response = None if raw is None else Dumped(PROVIDER, raw.encode())
    return StoredAnswer(parts["model"].encode(), response)


def _of_text(text: str) -> StoredAnswer:
    return StoredAnswer(text.encode(), fields_set=TEXT)


def _of_value(value: Any) -> StoredAnswer:
    data = json.dumps(value, default=lambda found: {BYTES: b64encode(found).decode()})
    return StoredAnswer(data.encode(), fields_set=VALUE)


def _value(stored: StoredAnswer) -> Any:
    answer, response = stored.answer.decode(), stored.completion
    if stored.fields_set == TEXT:
        return answer
    if stored.fields_set == VALUE:
        return json.loads(
            answer,
            object_hook=lambda found: b64decode(found[BYTES]) if found.keys() == {BYTES} else found,
        )
    return json.dumps({"model": answer, "raw": response and response.data.decode()})


def _completion(stored: StoredAnswer) -> dict[str, Any]:
    """The provider's response; empty where there is none, or instructor wrote it as Python does."""
    completion = None
    with suppress(ValueError, RecursionError):
        completion = json.loads(stored.completion.data) if stored.completion else None
    return completion if isinstance(completion, dict) else {}
