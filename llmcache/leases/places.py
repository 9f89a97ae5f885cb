"""Where the lease that all processes share is kept: in the hot tier, else in the rows.

The hot tier serves when it is one that all processes share and it answers; the rows, when not.
Where neither can be used, each process asks for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from django.db import connections

from llmcache.background import database, scheduler, transactions
from llmcache.breakers import Use, is_down, is_up, trying
from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.leases.kinds import HotPlace, RowsPlace, Seen
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import attempt, lasts, reporting, tried
from llmcache.result import Result
from llmcache.store.hot import tier as hot
from llmcache.store.rows import locks

T = TypeVar("T")

# Between two claims; and between two tries to free a lease, behind all callers.
ACQUIRE_PAUSE: Final = 0.02
FREE_PAUSE: Final = 0.3

#: Where leases are kept. Each method may raise what the tier raises.
Place = HotPlace | RowsPlace

HOT: Final = HotPlace()
ROWS: Final = RowsPlace()
EVERYWHERE: Final[tuple[Place, ...]] = (HOT, ROWS)


def first(key: str, token: str) -> Place | None:
    """Take a lease in the hot tier that nobody has; None: see `acquire`."""
    if next(_places(), None) is not HOT:
        return None
    return HOT if attempt(Tier.HOT, "lease from", partial(HOT.first, key, token)) else None


def may_be_stored(key: str) -> bool:
    """For who has just taken the `first` lease: whether an answer was stored lately."""
    see = partial(HOT.was_stored_lately, key)
    return attempt(Tier.HOT, "observe a lease in", see) is not False


def acquire(key: str, token: str) -> tuple[Place | None, str | None]:
    """Take the lease for `key`: where it is, and the token of its holder, None when it is ours.

    No place: it could be had nowhere, and is one of this process alone.
    """
    for place in _places():
        if _is_worth_asking(place):
            holder = _insist_on(place, key, token)
            if holder.error is None:
                return place, holder.value
            # It may have been claimed all the same, and the reply was lost. (Not where the one
            # writer of SQLite was another one: each free would wait for that one as well.)
            if not isinstance(holder.error, locks.Busy | database.HeldByATest):
                free_later(place, key, token, Ending.ABANDONED)
    return None, None


def observe(place: Place, key: str, holder: str) -> Seen:
    """What has become of the holder; where that cannot be told, it is gone."""
    if not _is_worth_asking(place, Use.READ):
        return Seen.GONE
    with trying(place.tier):
        see = partial(place.observe, key, holder)
        return attempt(place.tier, "observe a lease in", see) or Seen.GONE


def renew(place: Place, key: str, token: str) -> None:
    attempt(place.tier, "renew a lease in", partial(place.renew, key, token))


def free(place: Place, key: str, token: str, ending: Ending, ends: float | None = None) -> None:
    """Let the next one have it.

    What fails is tried until the lease would vanish by itself (at `ends`): others wait for it.
    """
    ends = time.monotonic() + settings.lease_seconds if ends is None else ends
    if _is_worth_asking(place):
        work = partial(place.free, key, token, ending)
        error = _try(place, "free a lease in", work).error
        if error is None or lasts(error):
            return
    if time.monotonic() < ends:
        # (where no thread is left, the process ends, and the lease by itself)
        scheduler.later(FREE_PAUSE, partial(free_later, place, key, token, ending, ends))


def free_later(
    place: Place, key: str, token: str, ending: Ending, ends: float | None = None
) -> None:
    """`free` behind the caller. A tier that hangs holds up its own leases only."""
    with reporting(place.tier, "free a lease in"):
        database.run_behind(partial(free, place, key, token, ending, ends), tier=place.tier)


def _places() -> Iterator[Place]:
    is_shared = False
    with reporting(Tier.HOT, "find"):
        is_shared = hot.is_shared()
    if is_shared:
        yield HOT
    # (a row would be part of a transaction: that of a test, or the caller's on SQLite)
    in_atomic_block = connections[transactions.database_alias()].in_atomic_block
    if not (in_atomic_block and (transactions.stays_here() or transactions.caller_is_the_writer())):
        yield ROWS


def _is_worth_asking(place: Place, *uses: Use) -> bool:
    return not is_down(place.tier, *uses) if place.patience else is_up(place.tier, *uses)


def _insist_on(place: Place, key: str, token: str) -> Result[str | None]:
    """What came of `place.acquire`.

    It is tried at least once, and what fails again for `place.patience` seconds, while the tier is
    worth asking, unless the trouble lasts (`failsafe.lasts`).
    """
    ends = time.monotonic() + place.patience
    while True:
        holder = _try(place, "lease from", partial(place.acquire, key, token))
        error, is_over = holder.error, time.monotonic() >= ends
        if error is None or lasts(error) or is_over or not _is_worth_asking(place):
            return holder
        time.sleep(ACQUIRE_PAUSE)


def _try(place: Place, operation: str, work: Callable[[], T]) -> Result[T]:
    """What came of `work`; an error is reported."""
    with trying(place.tier):
        return tried(place.tier, operation, work)
