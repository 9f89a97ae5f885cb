"""Cache-aside: entries behind the caches that other libraries ask.

Such a library looks up a text, asks the model itself, and hands the answer over. What it does not
tell is not known here: so there is no single flight, and a miss is recorded when its answer comes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from llmcache import store
from llmcache.codec.answers import StoredAnswer
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.outcomes import Call, Outcome
from llmcache.policy import UNSET, CacheMode, Policy, Unset, overridden
from llmcache.providers.admission import why_unfinished
from llmcache.providers.pricing import receipt
from llmcache.reasons import Reason, ReasonCode
from llmcache.removal.invalidate import ainvalidate, invalidate
from llmcache.resilience.failsafe import ends_the_task
from llmcache.store.records import Draft, Found, Missing, make_draft
from llmcache.usage import ledger

logger = logging.getLogger("llmcache")

# So many questions are remembered that were looked up and not answered yet.
MOST_ASKING: Final = 10_000
UNEQUAL: Final = ReasonCode.NOT_REPRODUCIBLE(why="it would come back different")
READING, STORING = "read", "store"


@dataclass(frozen=True, slots=True)
class Form:
    """How the answers of one library are kept.

    `cache` is the name of its cache, for the log; `kind` tells its keys from those of others, and
    `provider` its entries. `encode` makes of an answer what is stored, and `decode` is the way
    back; `encode` gives None where that would not be the same. `completion` is what the provider
    said, as JSON: the model, the tokens, and whether it has finished.
    """

    cache: str
    kind: str
    provider: str
    encode: Callable[[Any], StoredAnswer | None]
    decode: Callable[[StoredAnswer], Any]
    completion: Callable[[StoredAnswer], dict[str, Any]]


class Aside:
    """Gives and takes the answers to texts. No trouble of a tier reaches the caller (law A)."""

    def __init__(self, form: Form, policy: Policy) -> None:
        self._form, self._policy = form, policy
        # The questions that are being asked, by key: the generation then (see
        # `store.rows.late_answers`), and the moment.
        self._asking: dict[str, tuple[int | None, float]] = {}

    @property
    def policy(self) -> Policy:
        """What holds for a call that is made now."""
        return self._policy_of()

    def get(self, text: str, namespace: str | Unset = UNSET) -> Any | None:
        """What was stored under `text`; None: a miss, or trouble.

        `namespace`: where the call has named it, which nobody overrides.

        Raises `InvalidArgument` where ``LLMCACHE["REQUIRE_NAMESPACE"]`` asks for a namespace.
        """
        started = time.perf_counter()
        with self._failing_safe(READING, started):
            policy = self._policy_of(namespace=namespace)
            key = self._key(text, policy)
            found = store.lookup(key) if policy.mode.reads else Missing()
            if isinstance(found, Found):
                return self._hit(key, policy, found, started)
            self._note_asking(key, store.generation())
        return None

    async def aget(self, text: str, namespace: str | Unset = UNSET) -> Any | None:
        """`get` for a coroutine."""
        started = time.perf_counter()
        with self._failing_safe(READING, started):
            policy = self._policy_of(namespace=namespace)
            key = self._key(text, policy)
            found = await store.alookup(key) if policy.mode.reads else Missing()
            if isinstance(found, Found):
                return self._hit(key, policy, found, started)
            self._note_asking(key, await store.ageneration())
        return None

    def set(self, text: str, value: Any, ttl: float | Unset | None = UNSET, **facts: Any) -> None:
        """Store `value` for `ttl` seconds; None: for ever. Never raises.

        What would come back otherwise is not stored, and what was under `text` is gone then.
        `facts` are those of `_draft`.
        """
        with self._failing_safe(STORING):
            if drafted := self._draft(text, value, ttl, **facts):
                call, draft, (generation, started), unfit = drafted
                refusal = unfit or store.save(draft, generation)
                if _spoils(refusal) and isinstance(store.peek(call.key), Found):
                    invalidate(keys=[call.key])  # (it would be taken for what was to be stored)
                self._record_miss(call, draft, refusal, started)

    async def aset(
        self, text: str, value: Any, ttl: float | Unset | None = UNSET, **facts: Any
    ) -> None:
        """`set` for a coroutine."""
        with self._failing_safe(STORING):
            if drafted := self._draft(text, value, ttl, **facts):
                call, draft, (generation, started), unfit = drafted
                refusal = unfit or await store.asave(draft, generation)
                if _spoils(refusal) and isinstance(await store.alookup(call.key), Found):
                    await ainvalidate(keys=[call.key])
                self._record_miss(call, draft, refusal, started)

    def _policy_of(self, **told: Any) -> Policy:
        """What holds for a call that tells this."""
        names_namespace = told.get("namespace", UNSET) is not UNSET
        return overridden(self._policy.changed(**told), names_namespace=names_namespace)

    def _key(self, text: str, policy: Policy) -> str:
        # Of our own: an entry of one library is never taken for one of another, or of a client.
        kind = self._form.kind.encode()
        namespace = policy.namespace_name.encode()
        sample = b" %d" % policy.sample if policy.sample else b""
        content = b"llmcache %b%b %d:%b%b" % (
            kind,
            sample,
            len(namespace),
            namespace,
            text.encode(),
        )
        return hashlib.sha256(content).hexdigest()

    def _note_asking(self, key: str, generation: int | None) -> None:
        """The model is asked now: what is invalidated meanwhile is not to be stored."""
        if len(self._asking) >= MOST_ASKING:
            self._asking.clear()  # (most of them failed; the others go by the clock)
        self._asking[key] = generation, time.perf_counter()

    def _hit(self, key: str, policy: Policy, found: Found, started: float) -> Any:
        stored = StoredAnswer.unpack(found.body)
        value = self._form.decode(stored)
        call = self._call(key, policy, self._form.completion(stored))
        call.outcome, call.tier, call.receipt = Outcome.HIT, found.tier, stored.receipt
        call.created, call.expires = found.created, found.expires
        ledger.record(call, started)
        return value

    def _draft(
        self,
        text: str,
        value: Any,
        ttl: float | Unset | None,
        *,
        described: Callable[[], bytes | None] = lambda: None,
        namespace: str | Unset = UNSET,
    ) -> tuple[Call, Draft, tuple[int | None, float], Reason | None] | None:
        """What is to be stored, and why it may not be; None where that is asked for.

        `described` gives the request as people read it.
        """
        policy = self._policy_of(ttl=ttl, namespace=namespace)
        if policy.ttl_seconds == 0 or policy.mode is CacheMode.NO_STORE:
            return None
        key = self._key(text, policy)
        generation, started = self._asking.pop(key, (None, time.perf_counter()))
        encoded = self._form.encode(value)
        stored = encoded or StoredAnswer(b"null")
        completion = self._form.completion(stored)
        call = self._call(key, policy, completion)
        seconds = time.perf_counter() - started
        took = receipt(completion, provider=call.provider, seconds=seconds)
        call.spent = took
        unfit = why_unfinished(completion) if encoded else UNEQUAL
        if unfit:  # (other trouble is told by who has it)
            logger.warning("llmcache: %s did not store: %s", self._form.cache, unfit)
        asked = time.time() - seconds
        policy = policy.changed(
            stale_while_revalidate=0, stale_if_error=0
        )  # (it is never served so)
        draft = make_draft(call, policy, None, stored, described(), took, asked=asked)
        return call, draft, (generation, started), unfit

    def _record_miss(
        self, call: Call, draft: Draft, refusal: Reason | None, started: float
    ) -> None:
        """Only now is it known what was asked, so the miss is told only now."""
        if refusal is None:
            call.stored, call.size = True, len(draft.payload)
            call.created, call.expires = draft.created, draft.expires
        else:
            call.because(refusal)
            call.spoils = refusal.code is not ReasonCode.TOO_LARGE
        ledger.record(call, started)

    def _call(self, key: str, policy: Policy, completion: dict[str, Any]) -> Call:
        model = completion.get("model")
        return Call(
            key=key,
            namespace=policy.namespace_name,
            provider=self._form.provider,
            model=model if isinstance(model, str) else "",
        )

    @contextmanager
    def _failing_safe(self, verb: str, started: float = 0.0) -> Iterator[None]:
        try:
            yield
        except UncacheableRequest as error:
            if verb == READING:  # (told once for a call)
                call = Call(provider=self._form.provider, outcome=Outcome.BYPASS)
                call.because(error.reason)
                ledger.record(call, started)
        except Exception as error:
            is_mistake = verb == READING and isinstance(error, InvalidArgument)
            if is_mistake or ends_the_task(error):
                raise
            told = without_content(error)
            logger.warning("llmcache: %s could not %s: %s", self._form.cache, verb, told)


def _spoils(refusal: Reason | None) -> bool:
    """Whether what is under the key is not to be served any more."""
    return refusal is UNEQUAL or (refusal and refusal.code) is ReasonCode.TOO_LARGE
