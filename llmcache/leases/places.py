"""Where the lease that all processes share is kept: in the hot tier, else in the rows.

The hot tier serves when it is one that all processes share and it answers; the rows, when not.
Where neither can be used, each process asks for itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Protocol

from django.apps import apps
from django.db import connections
from django.db.models import Q, Value
from django.db.models.functions import Concat, Left
from django.utils import timezone

from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.outcomes import Tier
from llmcache.store import gate, hot, placement
from llmcache.store.breaker import FIRST_PAUSE, before_closing, is_down, is_up, trying
from llmcache.store.safety import LASTING, attempt, failing_safe

# So long the waiters have to notice that they are to ask for themselves.
NOTICE_SECONDS: Final = 10
# So many of them fit into a row. (A waiter looks every `leading.LONGEST_PAUSE` seconds, and from a
# claim to its release it takes some milliseconds at least.)
MOST_RELEASED: Final = 30
# So long a lease in SQLite waits for the write lock: a call is not held up for it.
LOCK_SECONDS: Final = 0.2
# Between two claims; and between two tries to free a lease, behind all callers. Those are to
# outlast a moment's trouble, not to count as the failures in a row that have a tier given a rest.
CLAIM_PAUSE: Final = 0.02
FREE_PAUSE: Final = 0.3
# So long a claim in the hot tier lasts until it is confirmed. A server that hung carries out what
# nobody knows of any more, and all would wait for its end.
CLAIM_SECONDS: Final = 2
# So many leases are remembered that could not be freed. (They vanish by themselves, only later.)
MOST_LEFT_BEHIND: Final = 1000


class Seen(Enum):
    """What a waiter sees of the holder it waits for."""

    ASKING = auto()
    RELEASED = auto()
    GONE = auto()


class Failed:
    """What could not be done, and the error that it met."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    @property
    def lasts(self) -> bool:
        """Whether to try again would not help."""
        return isinstance(self.error, LASTING)

    def noting(self, work: Callable[[], object]) -> object:
        """What `work` returns. Raises what it raises."""
        try:
            return work()
        except Exception as error:
            self.error = error
            raise


class Place(Protocol):
    """Where leases are kept. Each function may raise what the tier raises."""

    tier: Tier
    #: A claim that fails is tried again for so many seconds: it may be a moment's trouble (a
    #: thousand who ask at once), and elsewhere, another one would have the lease as well.
    patience: float

    def claim(self, key: str, token: str) -> str | None:
        """Take the lease for `key`. None: it is ours; else the token of its holder.

        That is empty where the holder has just let it go: nobody has it.
        """

    def look(self, key: str, holder: str) -> Seen: ...

    def renew(self, key: str, token: str) -> None: ...

    def free(self, key: str, token: str, ending: Ending) -> None: ...


class HotPlace:
    """Leases in the hot tier: a value that vanishes by itself when nobody renews it."""

    tier = Tier.HOT
    patience = 2 * FIRST_PAUSE

    def claim(self, key: str, token: str) -> str | None:
        if hot.add(_lease(key), token.encode(), CLAIM_SECONDS) or self._holder(key) == token:
            hot.touch(_lease(key), settings.lease_seconds)
        # (the claim may have ended before it was confirmed; and where there is no holder by now, it
        # is nobody)
        holder = self._holder(key)
        return None if holder == token else holder

    def look(self, key: str, holder: str) -> Seen:
        values = hot.values([_lease(key), _notice(holder)])
        if values.get(_lease(key)) == holder.encode():
            return Seen.ASKING
        return Seen.RELEASED if _notice(holder) in values else Seen.GONE

    def renew(self, key: str, token: str) -> None:
        holder = self._holder(key)
        if not holder:  # the tier was emptied
            self.claim(key, token)
        elif holder == token:
            hot.touch(_lease(key), settings.lease_seconds)

    def free(self, key: str, token: str, ending: Ending) -> None:
        if ending is Ending.RELEASED:
            # (no number: django-redis would give it back as one)
            hot.put(_notice(token), b"released", NOTICE_SECONDS)
        if self._holder(key) == token:
            hot.drop([_lease(key)])

    def _holder(self, key: str) -> str:
        return hot.values([_lease(key)]).get(_lease(key), b"").decode()


class RowsPlace:
    """Leases as rows. Each statement stands alone: there is no transaction that others wait for."""

    tier = Tier.DURABLE
    patience = 0.0

    def claim(self, key: str, token: str) -> str | None:
        given_up = threading.Event()
        try:
            return placement.run(partial(self._claim_for, given_up, key, token))
        except TimeoutError:
            given_up.set()
            raise

    def look(self, key: str, holder: str) -> Seen:
        return placement.run(partial(self._look, key, holder))

    def renew(self, key: str, token: str) -> None:
        ours = {"expires_at": _after(settings.lease_seconds)}
        placement.run(lambda: _rows().filter(key=key, token=token).update(**ours))

    def free(self, key: str, token: str, ending: Ending) -> None:
        placement.run(partial(self._free, key, token, ending))

    def _claim_for(self, given_up: threading.Event, key: str, token: str) -> str | None:
        holder = gate.past_deadlocks(partial(self._claim, key, token))
        # (nobody knows of a lease that came too late: all would wait for it)
        if given_up.is_set():
            self._free(key, token, Ending.ABANDONED)
        return holder

    def _claim(self, key: str, token: str) -> str | None:
        # The seat of one that has ended, or whose holder is gone, is taken over.
        is_free = Q(token="") | Q(expires_at__lte=timezone.now())
        ours = {"token": token, "expires_at": _after(settings.lease_seconds)}
        with gate.impatient(placement.database_alias(), LOCK_SECONDS):
            if _rows().filter(is_free, key=key).update(**ours):
                return None
            _rows().bulk_create([_rows().model(key=key, **ours)], ignore_conflicts=True)
        holder = _rows().filter(key=key).values_list("token", flat=True).first()
        return None if holder == token else holder or ""

    def _look(self, key: str, holder: str) -> Seen:
        row = _rows().filter(key=key).first()
        if row is not None and holder and row.token == holder and row.expires_at > timezone.now():
            return Seen.ASKING
        return Seen.RELEASED if row is not None and holder in row.released.split() else Seen.GONE

    def _free(self, key: str, token: str, ending: Ending) -> None:
        ours = _rows().filter(key=key, token=token)
        if ending is Ending.RELEASED:
            # (the latest first; those who wait for an earlier one have not looked yet)
            released = Left(
                Concat(Value(f"{token} "), "released"), MOST_RELEASED * (len(token) + 1)
            )
            ours.update(token="", released=released, expires_at=_after(NOTICE_SECONDS))
        else:
            ours.delete()


def claim(key: str, token: str) -> tuple[Place | None, str | None]:
    """Take the lease for `key`: where it is, and the token of its holder, None when it is ours.

    No place: it could be had nowhere, and is one of this process alone.
    """
    for place in _places():
        if _is_worth_asking(place):
            holder = _insist_on(place, key, token)
            if not isinstance(holder, Failed):
                return place, holder
            # It may have been claimed all the same, and the reply was lost. (Not where the one
            # writer of SQLite was another one: each free would wait for that one as well.)
            if not isinstance(holder.error, gate.Busy):
                free_later(place, key, token, Ending.ABANDONED)
    return None, None


def look(place: Place, key: str, holder: str) -> Seen:
    """What has become of the holder; where that cannot be told, it is gone."""
    if not _is_worth_asking(place):
        return Seen.GONE
    with trying(place.tier):
        see = partial(place.look, key, holder)
        return attempt(place.tier, "look at a lease in", see, default=Seen.GONE)


def renew(place: Place, key: str, token: str) -> None:
    attempt(place.tier, "renew a lease in", partial(place.renew, key, token))


def free(place: Place, key: str, token: str, ending: Ending) -> None:
    """Let the next one have it; where the tier fails, once it is found well again.

    What fails for a moment is tried until the lease would vanish by itself: others wait for it.
    """
    _free(place, key, token, ending, time.monotonic() + settings.lease_seconds)


def free_later(place: Place, key: str, token: str, ending: Ending) -> None:
    """`free` behind the caller. A tier that hangs holds up its own leases only."""
    with failing_safe(place.tier, "free a lease in"):
        placement.run_errand_later(partial(free, place, key, token, ending), tier=place.tier)


def _free(place: Place, key: str, token: str, ending: Ending, ends: float) -> None:
    work = partial(place.free, key, token, ending)
    if not _is_worth_asking(place):
        _leave_behind(place, work)
        return
    failed = _try(place, "free a lease in", work)
    if not isinstance(failed, Failed):
        return
    if failed.lasts or not _is_worth_asking(place) or time.monotonic() >= ends:
        _leave_behind(place, work)
    else:
        _in_a_moment(place, partial(_free, place, key, token, ending, ends))


def _in_a_moment(place: Place, work: Callable[[], object]) -> None:
    """Have an errand done a little later; no thread that others need waits for that."""

    def begin() -> None:
        with failing_safe(place.tier, "free a lease in"):
            placement.run_errand_later(work, tier=place.tier)

    timer = threading.Timer(FREE_PAUSE, begin)
    timer.daemon = True
    # (no more threads: the process ends, and the lease by itself)
    with suppress(RuntimeError):
        timer.start()


def _is_worth_asking(place: Place) -> bool:
    return not is_down(place.tier) if place.patience else is_up(place.tier)


def _insist_on(place: Place, key: str, token: str) -> Any:
    """What `place.claim` returns; `Failed` when it cannot be told.

    It is tried at least once, and what fails again for `place.patience` seconds, while the tier is
    worth asking, unless the trouble lasts (`safety.LASTING`).
    """
    ends = time.monotonic() + place.patience
    while True:
        holder = _try(place, "lease from", partial(place.claim, key, token))
        if not isinstance(holder, Failed) or holder.lasts or not _is_worth_asking(place):
            return holder
        if time.monotonic() >= ends:
            return holder
        time.sleep(CLAIM_PAUSE)


def _try(place: Place, operation: str, work: Callable[[], object]) -> Any:
    """What `work` returns; `Failed`, and it is reported, when it raises."""
    failed = Failed()
    with trying(place.tier):
        return attempt(place.tier, operation, partial(failed.noting, work), default=failed)


def _leave_behind(place: Place, free: Callable[[], object]) -> None:
    """Have a lease freed once the tier is found well again."""
    _left_behind[place.tier].append((time.monotonic(), free))


def _free_left_behind(tier: Tier) -> None:
    """Those that were not freed when they ended, and have not vanished by themselves since."""
    left, began = _left_behind[tier], time.monotonic()
    while left and left[0][0] < began:
        ended, work = left.popleft()
        if began - ended < settings.lease_seconds:
            work()


HOT: Final = HotPlace()
ROWS: Final = RowsPlace()
EVERYWHERE: Final[tuple[Place, ...]] = (HOT, ROWS)

# When each ended, and what frees it; the oldest are forgotten first.
_left_behind: Final[dict[Tier, deque[tuple[float, Callable[[], object]]]]] = {
    place.tier: deque(maxlen=MOST_LEFT_BEHIND) for place in EVERYWHERE
}
for _tier in _left_behind:
    before_closing(_tier, partial(_free_left_behind, _tier))


def _places() -> list[Place]:
    places: list[Place] = []
    with trying(Tier.HOT):  # (this does not ask it)
        if attempt(Tier.HOT, "find", hot.is_shared):
            places.append(HOT)
    if not _nobody_would_see_a_row():
        places.append(ROWS)
    return places


def _nobody_would_see_a_row() -> bool:
    """Whether a row would be part of a transaction: that of a test, or the caller's on SQLite."""
    in_atomic_block = connections[placement.database_alias()].in_atomic_block
    return in_atomic_block and (placement.stays_here() or placement.caller_is_the_writer())


def _rows() -> Any:
    return apps.get_model("llmcache", "Lease").objects.using(placement.database_alias())


def _after(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def _lease(key: str) -> str:
    return f"llmcache:lease:{key}"


def _notice(token: str) -> str:
    return f"llmcache:released:{token}"
