"""Requests and entries for the rules of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from llmcache.flow import (
    drivers,
    rules,
)
from llmcache.outcomes import Call, Inside, Tier
from llmcache.policy import CacheMode, Policy
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Draft, Found

KEY = "ab" * 32

DRAFT = Draft(key=KEY, namespace="default", payload=b"sealed", created=1.0)

FRESH = Found(b"body", Tier.HOT, 2e9)

STALE = Found(b"body", Tier.DURABLE, 1.0, stale_for=60.0)

HOT_FAILED = ReasonCode.TIER_FAILED(tier="hot", operation="read", error="TimeoutError")

NO_KEY = ReasonCode.NO_KEY(error="TypeError")


class FakeRequest:
    """A call whose parts do as they are told: an exception is raised, anything else given back."""

    def __init__(
        self,
        mode: str = "default",
        *,
        bypass: Reason | None = None,
        restored: Any = "from the store",
        draft: Any = DRAFT,
        before: Any = None,
        billed: Any = None,
    ) -> None:
        self.call = Call(key="" if bypass else KEY, namespace="default")
        self.policy = Policy(CacheMode(mode))
        self.bypass = bypass
        self.restored, self.drafted, self.before = restored, draft, before
        self.billed, self.bills = billed, list[Any]()
        self.asks_alone = self.begun = self.is_one_call = False
        self.wait_seconds = 120.0
        self.inside: Inside | None = None
        self.done: list[Any] = []

    def again(self) -> Callable[[Any], Any]:
        self.done.append("again")
        return lambda lease: self.done.append(("refreshed", lease))

    def restore(self, found: Found) -> Any:
        self.done.append(("restore", found))
        return told(self.restored)

    def before_asking(self) -> None:
        self.done.append("before asking")
        told(self.before)

    def bill(self, answer: Any, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.bills.append(answer)
        told(self.billed)

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        assert asked > 1.7e9
        assert 0 <= latency < 60
        self.done.append(("draft", answer))
        draft: Draft = told(self.drafted)
        return draft


def told(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


def said(call: Call) -> tuple[Any, ...]:
    return call.outcome, call.tier, call.stored, call.reason


class FakeEntries:
    """Stands in for the store, and notes what it is asked."""

    def __init__(self, found: Any, refusal: Any) -> None:
        self.found, self.refusal = found, refusal
        self.effects: list[Any] = []

    def lookup(self, key: str, *, stale: bool) -> Any:
        self.effects.append(("lookup", key, stale))
        return told(self.found)

    def save(self, draft: Draft, generation: int | None) -> Any:
        self.effects.append(("save", draft))
        return told(self.refusal)

    async def alookup(self, key: str, *, stale: bool) -> Any:
        await asyncio.sleep(0)
        return self.lookup(key, stale=stale)

    async def asave(self, draft: Draft, generation: int | None) -> Any:
        await asyncio.sleep(0)
        return self.save(draft, generation)

    def generation(self) -> int | None:
        return 7

    async def ageneration(self) -> int | None:
        await asyncio.sleep(0)
        return 7

    def copy_of(self, draft: Draft) -> Any:
        return None

    def acquire(self, key: str, seconds: float, *looked: Any) -> Any:
        return None

    async def aacquire(self, key: str, seconds: float, *looked: Any) -> Any:
        await asyncio.sleep(0)

    def take_over(self, patch: pytest.MonkeyPatch) -> None:
        """Be the store, and the leases, of the flow."""
        patch.setattr(rules, "store", self)
        patch.setattr(drivers, "store", self)
        patch.setattr(drivers, "acquire", self.acquire)
        patch.setattr(drivers, "aacquire", self.aacquire)

    def refuse(self, key: str, tier: Tier, error: Exception) -> None:
        self.effects.append(("refuse", key, tier, error))
