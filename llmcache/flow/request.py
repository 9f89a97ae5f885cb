"""What the calls of clients and of decorated functions have in common, as the flow sees them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Self

from django.core.exceptions import ImproperlyConfigured

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.conf import settings
from llmcache.discretion import without_content
from llmcache.exceptions import UncacheableRequest
from llmcache.explanation.comparison import Subject
from llmcache.explanation.explain import Explanation, explain_call
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.rules import refreshed
from llmcache.flow.steps import NotRestorable, NotStorable
from llmcache.flow.stream_drivers import Recording, aread_stream, read_stream
from llmcache.keys.request import CanonicalRequest
from llmcache.leases import Lease
from llmcache.outcomes import NO_RECEIPT, Call, Inside, Receipt
from llmcache.policy import CacheMode, Policy
from llmcache.providers.admission import why_not_admitted
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Draft, Found, make_draft

logger = logging.getLogger("llmcache")

#: What carries a flow out to its end, where it is a stream, and where it is awaited.
DRIVERS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): drive,
    (False, True): adrive,
    (True, False): read_stream,
    (True, True): aread_stream,
}


@dataclass(slots=True, kw_only=True)
class BaseRequest(ABC):
    """One call (a `StreamRequest`), but for what the way in knows: how to ask, and its answers."""

    policy: Policy
    call: Call
    #: Why it cannot be cached; None when it can.
    bypass: Reason | None = None
    canonical: CanonicalRequest | None = None
    endpoint: str = ""
    described: bytes | None = None
    #: Why the answer is not one to what the key says, once that is known.
    refusal: Reason | None = None
    receipt: Receipt = NO_RECEIPT
    begun: bool = False
    inside: Inside | None = None
    #: Where the answer is put instead of into the store; None: it is stored.
    held_back: list[Draft] | None = None

    @property
    @abstractmethod
    def mode(self) -> str:
        """How it is asked, as the rows have it."""

    @property
    @abstractmethod
    def asks(self) -> tuple[Callable[[], Any], bool, bool]:
        """What asks for the answer; whether that is a stream, and whether it is awaited."""

    @abstractmethod
    def copied(self, **changes: Any) -> Self:
        """The same call, with copies of its arguments. Raises whatever it may without them."""

    @abstractmethod
    def canonical_now(self) -> CanonicalRequest:
        """The request as its arguments are now. Raises whatever it may where they have no form."""

    @abstractmethod
    def why_changed(self) -> Reason | None:
        """Why an answer that has just come is not one to what the key says; None where it is."""

    @abstractmethod
    def restore(self, found: Found) -> Any: ...

    @abstractmethod
    def before_asking(self) -> None: ...

    @abstractmethod
    def bill(self, answer: Any, seconds: float) -> None: ...

    @abstractmethod
    def describe(self) -> bytes | None:
        """The request as JSON, for people to read; None when it is not to be stored."""

    @abstractmethod
    def encoded(self, answer: Any) -> StoredAnswer:
        """`answer` for the store. Raises `NotStorable` when it should not be kept."""

    @abstractmethod
    def recorded(self, recording: Recording) -> StoredAnswer:
        """What has passed of a stream that has come to its end, as `encoded`."""

    @abstractmethod
    def encoded_item(self, item: Any) -> bytes:
        """One item of a stream for the store, as `encoded`."""

    @property
    def tags(self) -> frozenset[str]:
        return self.policy.tags

    @property
    def wait_seconds(self) -> float:
        return settings.wait_seconds

    @property
    def is_one_call(self) -> bool:
        return False

    @property
    def asks_alone(self) -> bool:
        return self.asks[1]

    def is_as_keyed(self) -> bool:
        """Whether the arguments have the key that they had when they were read."""
        try:
            return self.canonical_now().key == self.call.key
        except Exception:  # noqa: BLE001 - what they have become may have no key
            return False

    @staticmethod
    def admit(answer: Any, completion: Any) -> None:
        """Raise `NotStorable` where the response, or the project, speaks against keeping it."""
        if refusal := why_not_admitted(answer, completion):
            raise NotStorable(refusal)

    def again(self) -> Callable[[Lease | None], Any]:
        return self.anew().refresh

    def anew(self) -> Self:
        """The same call, which is to be asked once more."""
        return self.copied(
            policy=replace(self.policy, mode=CacheMode.RELOAD),
            call=self.call.once_more(),
            described=None,
            refusal=None,
            receipt=NO_RECEIPT,
            begun=False,
            inside=None,
        )

    def refresh(self, lease: Lease | None) -> Any:
        """Ask for a new answer and store it, by the right of `lease`; awaited where `asks` is."""
        ask, is_stream, is_async = self.asks
        return DRIVERS[is_stream, is_async](self, ask, refreshed(self, lease))

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        if self.policy.ttl_seconds == 0:
            raise NotStorable(ReasonCode.NO_TTL())
        if self.canonical is None:
            raise TypeError("the call has no key")
        if refusal := self.refusal or self.why_changed():
            raise NotStorable(refusal)
        with _told_apart():
            is_stream = isinstance(answer, Recording)
            stored = self.recorded(answer) if is_stream else self.encoded(answer)
        draft = make_draft(
            self.call,
            self.policy,
            self.canonical,
            stored,
            self.described,
            self.receipt,
            asked=asked,
            inside=self.inside,
            tags=self.tags,
            endpoint=self.endpoint,
            mode=self.mode,
        )
        if self.held_back is not None:
            self.held_back.append(draft)
            raise NotStorable(ReasonCode.TO_BE_CONFIRMED())
        return draft

    def encode_item(self, item: Any) -> bytes:
        with _told_apart():
            return self.encoded_item(item)

    def explained(self) -> Explanation:
        """What would come of it, and why. Nobody is asked but the tiers."""
        call, canonical = self.call, self.canonical
        subject = Subject(
            name="this call",
            key=call.key,
            namespace=call.namespace,
            provider=call.provider,
            endpoint=self.endpoint,
            model=call.model,
            mode=self.mode,
            response_model=call.response_model,
            digests=canonical.digests() if canonical else {},
            describe=self.describe,
        )
        return explain_call(subject, policy=self.policy, bypass=self.bypass, restore=self.restore)

    def refuse_key(self, error: Exception, name: str) -> None:
        """Have the call asked past the cache: `error` was met where its key was computed.

        `name`: what is asked, in a word, for the log.
        """
        part, why = "request", without_content(error)
        bypass = ReasonCode.NO_KEY(error=type(error).__name__)
        if isinstance(error, UncacheableRequest):
            part, why, bypass = error.part.partition("[")[0], error.why, error.reason
        elif isinstance(error, ImproperlyConfigured):
            part, bypass = "settings", ReasonCode.WRONG_SETTING(why=why)
        self.bypass = self.bypass or bypass
        _warn_once(name, part, why)


@contextmanager
def _told_apart() -> Iterator[None]:
    """That an answer cannot come back is no error of the encoding."""
    try:
        yield
    except NotReproducible as error:
        raise NotRestorable(ReasonCode.NOT_REPRODUCIBLE(why=error)) from None


@lru_cache(maxsize=1000)
def _warn_once(name: str, part: str, why: str) -> None:
    logger.warning("llmcache: calls of %s are not cached: %s: %s", name, part, why)
