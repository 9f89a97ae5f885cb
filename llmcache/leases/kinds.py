"""The two kinds of places where a lease is kept: the hot tier, and the rows.

In both, each renewal changes what is kept there. So whoever waits sees that the holder is alive,
and takes over what nobody has renewed for ``LEASE_SECONDS``, whenever the tier would let it end by
itself; what no holder can have put there, at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from django.db.models import Q, Value
from django.db.models.functions import Concat, Left
from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.background.forks import lock
from llmcache.breakers import FIRST_PAUSE
from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.outcomes import Tier
from llmcache.store.hot import tier as hot
from llmcache.store.rows import locks

# So long the waiters have to notice that they are to ask for themselves.
NOTICE_SECONDS: Final = 10
# So many leases are remembered that were seen in the hands of others.
MOST_WATCHED: Final = 1000

# So long a claim in the hot tier lasts until it is confirmed, at least. A server that hung carries
# out what nobody knows of any more, and all would wait for its end.
ACQUIRE_SECONDS: Final = 2.0
# So often it is tried to get one that somebody has, but nobody holds.
ATTEMPTS: Final = 3
LONGEST_TOKEN: Final = 32
# So long it is known that an answer was stored, to who has looked before that.
STORED_SECONDS: Final = 3.0

# So many of them fit into a row. (A waiter looks every `acquisition.LONGEST_PAUSE` seconds, and
# from a claim to its release it takes some milliseconds at least.)
MOST_RELEASED: Final = 30
# So long a lease in SQLite waits for the write lock: a call is not held up for it.
LOCK_SECONDS: Final = 0.2


class Seen(Enum):
    """What a waiter sees of the holder it waits for."""

    ASKING = auto()
    RELEASED = auto()
    GONE = auto()


class HotPlace:
    """Leases in the hot tier: a value that vanishes by itself when nobody renews it."""

    tier = Tier.HOT
    #: A claim that fails is tried again for so many seconds: it may be a moment's trouble (a
    #: thousand who ask at once), and elsewhere, another one would have the lease as well.
    patience = 2 * FIRST_PAUSE

    def seconds(self) -> float:
        """How long a lease that was just taken lasts."""
        return min(ACQUIRE_SECONDS, settings.lease_seconds)

    def first(self, key: str, token: str) -> bool:
        """Take the lease, by one question, where nobody has it.

        Until it is renewed, it lasts for `seconds`.
        """
        began = time.monotonic()
        is_ours = hot.add(_lease(key), _renewed(token), _claim_seconds())
        return is_ours and time.monotonic() - began < ACQUIRE_SECONDS / 2

    def acquire(self, key: str, token: str) -> str | None:
        """Take the lease for `key`. None: it is ours; else the token of its holder.

        That is empty where the holder has just let it go: nobody has it.
        """
        name, claimed_for = _lease(key), _claim_seconds()
        for claims in range(1, ATTEMPTS + 1):
            if hot.add(name, _renewed(token), claimed_for) or _holder_in(_value(name)) == token:
                hot.touch(name, settings.lease_seconds)
            # (the claim may have ended before it was confirmed)
            value = _value(name)
            holder = _holder_in(value)
            if holder == token:
                return None
            if holder and not is_silent(key, value):
                return holder
            # Nothing is there by now; or what is no lease, which Redis may not even show.
            if value is not None or claims > 1:
                hot.drop([name])
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
        holder = _holder_in(_value(_lease(key)))
        if not holder:  # the tier was emptied
            self.acquire(key, token)
        elif holder == token:
            hot.put(_lease(key), _renewed(token), settings.lease_seconds)

    def free(self, key: str, token: str, ending: Ending) -> None:
        if ending is Ending.RELEASED:
            # (no number: plain django-redis would give it back as one)
            hot.put(_notice(token), b"released", NOTICE_SECONDS)
        if _holder_in(_value(_lease(key))) != token:
            return
        if ending is Ending.STORED:
            # (before the lease can be had: who has looked earlier looks again)
            hot.put(_stored(key), b"stored", STORED_SECONDS)
        hot.drop([_lease(key)])

    def was_stored_lately(self, key: str) -> bool:
        """Whether an answer was, before who asks has taken the lease."""
        return _value(_stored(key)) is not None


def _claim_seconds() -> float:
    return max(ACQUIRE_SECONDS, 2 * hot.patience())


def _value(name: str) -> bytes | None:
    return hot.values([name]).get(name)


def _renewed(token: str) -> bytes:
    """What says in the hot tier who holds a lease; it differs each time."""
    return f"{token}:{time.time_ns()}".encode()


def _holder_in(value: bytes | None) -> str:
    """The token in what `_renewed` has made; empty for what nobody of ours has put there."""
    token = (value or b"").partition(b":")[0]
    return token.decode() if token.isascii() and len(token) <= LONGEST_TOKEN else ""


def _lease(key: str) -> str:
    return f"llmcache:lease:{key}"


def _stored(key: str) -> str:
    return f"llmcache:stored:{key}"


def _notice(token: str) -> str:
    return f"llmcache:released:{token}"


class RowsPlace:
    """Leases as rows. Each statement stands alone: there is no transaction that others wait for."""

    tier = Tier.DURABLE
    patience = 0.0

    def seconds(self) -> float:
        return settings.lease_seconds

    def acquire(self, key: str, token: str) -> str | None:
        given_up = threading.Event()

        def work() -> str | None:
            holder = locks.past_deadlocks(partial(self._acquire, key, token))
            # (nobody knows of a lease that came too late: all would wait for it)
            if given_up.is_set():
                self.free(key, token, Ending.ABANDONED)
            return holder

        try:
            return database.run(work)
        except TimeoutError:
            given_up.set()
            raise

    def observe(self, key: str, holder: str) -> Seen:
        row = database.run(_rows().filter(key=key).first)
        if row is None:
            return Seen.GONE
        if holder and row.token == holder and row.expires_at > timezone.now():
            silent = is_silent(key, (holder, row.expires_at))
            return Seen.GONE if silent else Seen.ASKING
        return Seen.RELEASED if holder in row.released.split() else Seen.GONE

    def renew(self, key: str, token: str) -> None:
        ours = _rows().filter(key=key, token=token)
        database.run(partial(ours.update, expires_at=_after(settings.lease_seconds)))

    def free(self, key: str, token: str, ending: Ending) -> None:
        ours = _rows().filter(key=key, token=token)
        if ending is not Ending.RELEASED:
            database.run(ours.delete)
            return
        # (the latest first; those who wait for an earlier one have not looked yet)
        released = Left(Concat(Value(f"{token} "), "released"), MOST_RELEASED * (len(token) + 1))
        freed = {"token": "", "released": released, "expires_at": _after(NOTICE_SECONDS)}
        database.run(partial(ours.update, **freed))

    def _acquire(self, key: str, token: str) -> str | None:
        # The seat of one that has ended, or whose holder is gone, is taken over.
        is_free = Q(token="") | Q(expires_at__lte=timezone.now())
        ours = {"token": token, "expires_at": _after(settings.lease_seconds)}
        rows = _rows().filter(key=key)
        with locks.impatient(transactions.database_alias(), LOCK_SECONDS):
            if rows.filter(is_free).update(**ours):
                return None
            rows.bulk_create([rows.model(key=key, **ours)], ignore_conflicts=True)
        holder, ends = rows.values_list("token", "expires_at").first() or ("", None)
        if holder == token:
            return None
        if not holder or not is_silent(key, (holder, ends)):
            return str(holder)
        return None if rows.filter(token=holder, expires_at=ends).update(**ours) else ""


def _rows() -> Any:
    return transactions.rows("Lease")


def _after(seconds: float) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


def is_silent(key: str, sign: object) -> bool:
    """Whether the lease for `key` has been seen with the same `sign` of its holder for too long."""
    now, longest = time.monotonic(), settings.lease_seconds
    with _watching:
        seen, since = _watched.pop(key, (None, now))
        _watched[key] = sign, since if seen == sign else now
        if len(_watched) > MOST_WATCHED:
            _watched.popitem(last=False)
        return seen == sign and now - since > longest


_watching: Final = lock()
_watched: Final = OrderedDict[str, tuple[object, float]]()
