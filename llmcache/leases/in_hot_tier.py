"""Leases in the hot tier."""

from __future__ import annotations

import time
from typing import Final

from llmcache.breakers import FIRST_PAUSE
from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.leases.place import NOTICE_SECONDS, Seen
from llmcache.leases.silence import is_silent
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot

# So long a claim in the hot tier lasts until it is confirmed, at least. A server that hung carries
# out what nobody knows of any more, and all would wait for its end.
ACQUIRE_SECONDS: Final = 2.0
# So often it is tried to get one that somebody has, but nobody holds.
ATTEMPTS: Final = 3
LONGEST_TOKEN: Final = 32
# What is in the place of a lease while it matters that an answer was stored: no token.
STORED: Final = b":stored"
STORED_SECONDS: Final = 3.0


class HotPlace:
    """Leases in the hot tier: a value that vanishes by itself when nobody renews it."""

    tier = Tier.HOT
    patience = 2 * FIRST_PAUSE

    def seconds(self) -> float:
        return min(ACQUIRE_SECONDS, settings.lease_seconds)

    def first(self, key: str, token: str) -> bool:
        """Take the lease, by one question, where nobody has it, nor has stored an answer lately.

        Until it is renewed, it lasts for `seconds`.
        """
        began = time.monotonic()
        is_ours = hot.add(_lease(key), _renewed(token), _claim_seconds())
        return is_ours and time.monotonic() - began < ACQUIRE_SECONDS / 2

    def acquire(self, key: str, token: str) -> str | None:
        for tried in range(1, ATTEMPTS + 1):
            if (
                hot.add(_lease(key), _renewed(token), _claim_seconds())
                or self._holder(key) == token
            ):
                hot.touch(_lease(key), settings.lease_seconds)
            # (the claim may have ended before it was confirmed)
            value = self._value(key)
            holder = _holder_in(value)
            if holder == token:
                return None
            if holder and not is_silent(key, value):
                return holder
            # Nothing is there by now; or what is no lease: that an answer was stored, or what Redis
            # may not even show.
            if value is not None or tried > 1:
                hot.drop([_lease(key)])
        if value is not None:
            raise hot.WrongReply("it did not remove a lease that nobody renews")
        return ""

    def observe(self, key: str, holder: str) -> Seen:
        values = hot.values([_lease(key), _notice(holder)])
        value = values.get(_lease(key))
        if holder and _holder_in(value) == holder and not is_silent(key, value):
            return Seen.ASKING
        return Seen.RELEASED if _notice(holder) in values else Seen.GONE

    def renew(self, key: str, token: str) -> None:
        holder = self._holder(key)
        if not holder:  # the tier was emptied
            self.acquire(key, token)
        elif holder == token:
            hot.put(_lease(key), _renewed(token), settings.lease_seconds)

    def free(self, key: str, token: str, ending: Ending) -> None:
        if ending is Ending.RELEASED:
            # (no number: plain django-redis would give it back as one)
            hot.put(_notice(token), b"released", NOTICE_SECONDS)
        if self._holder(key) != token:
            return
        if ending is Ending.STORED:
            # (for who has looked before that, and asks for the lease only now)
            hot.put(_lease(key), STORED, STORED_SECONDS)
        else:
            hot.drop([_lease(key)])

    def _holder(self, key: str) -> str:
        return _holder_in(self._value(key))

    def _value(self, key: str) -> bytes | None:
        return hot.values([_lease(key)]).get(_lease(key))


def _claim_seconds() -> float:
    return max(ACQUIRE_SECONDS, 2 * hot.patience())


def _renewed(token: str) -> bytes:
    """What says in the hot tier who holds a lease; it differs each time."""
    return f"{token}:{time.time_ns()}".encode()


def _holder_in(value: bytes | None) -> str:
    """The token in what `_renewed` has made; empty for what nobody of ours has put there."""
    token = (value or b"").partition(b":")[0]
    return token.decode() if token.isascii() and len(token) <= LONGEST_TOKEN else ""


def _lease(key: str) -> str:
    return f"llmcache:lease:{key}"


def _notice(token: str) -> str:
    return f"llmcache:released:{token}"
