"""Where the lease that all processes share is kept: in the hot tier, else in the rows.

The hot tier serves when it is one that all processes share and it answers; the rows, when not.
Where neither can be used, each process asks for itself.

Each renewal changes what is kept there. So whoever waits sees that the holder is alive, and takes
over what nobody has renewed for ``LEASE_SECONDS``, whenever the tier would let it end by itself;
what no holder can have put there, at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from django.db import connections

from llmcache.background import database, scheduler, transactions
from llmcache.breakers import Use, before_closing, is_down, is_up, trying
from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.leases.in_hot_tier import HotPlace
from llmcache.leases.in_rows import RowsPlace
from llmcache.leases.place import Place, Seen
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import attempt, failing_safe, lasts, tried
from llmcache.result import Result
from llmcache.store.hot import tier as hot
from llmcache.store.rows import locks

T = TypeVar("T")

# Between two claims; and between two tries to free a lease, behind all callers. Those are to
# outlast a moment's trouble, not to count as the failures in a row that open a circuit.
ACQUIRE_PAUSE: Final = 0.02
FREE_PAUSE: Final = 0.3
# So many leases are remembered that could not be freed. (They vanish by themselves, only later.)
MOST_LEFT_BEHIND: Final = 1000


def first(key: str, token: str) -> Place | None:
    """Take a lease in the hot tier that nobody has, nor had lately; None: see `acquire`."""
    if next(iter(_places()), None) is not HOT:
        return None
    is_ours = attempt(Tier.HOT, "lease from", partial(HOT.first, key, token), default=False)
    return HOT if is_ours else None


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
        return attempt(place.tier, "observe a lease in", see, default=Seen.GONE)


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
        database.run_behind(partial(free, place, key, token, ending), tier=place.tier)


def _free(place: Place, key: str, token: str, ending: Ending, ends: float) -> None:
    work = partial(place.free, key, token, ending)
    if not _is_worth_asking(place):
        _leave_behind(place, work)
        return
    error = _try(place, "free a lease in", work).error
    if error is None:
        return
    if lasts(error) or not _is_worth_asking(place) or time.monotonic() >= ends:
        _leave_behind(place, work)
    else:
        _in_a_moment(place, partial(_free, place, key, token, ending, ends))


def _in_a_moment(place: Place, work: Callable[[], object]) -> None:
    """Have work done a little later; no thread that others need waits for that."""

    def start() -> None:
        with failing_safe(place.tier, "free a lease in"):
            database.run_behind(work, tier=place.tier)

    # (no more threads: the process ends, and the lease by itself)
    scheduler.later(FREE_PAUSE, start)


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
        error = holder.error
        if error is None or lasts(error) or not _is_worth_asking(place):
            return holder
        if time.monotonic() >= ends:
            return holder
        time.sleep(ACQUIRE_PAUSE)


def _try(place: Place, operation: str, work: Callable[[], T]) -> Result[T]:
    """What came of `work`; an error is reported."""
    with trying(place.tier):
        return tried(place.tier, operation, work)


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
    before_closing(_tier, Use.WRITE, partial(_free_left_behind, _tier))


def _places() -> Iterator[Place]:
    with trying(Tier.HOT):  # (this does not ask it)
        is_shared = attempt(Tier.HOT, "find", hot.is_shared)
    if is_shared:
        yield HOT
    if not _nobody_would_see_a_row():
        yield ROWS


def _nobody_would_see_a_row() -> bool:
    """Whether a row would be part of a transaction: that of a test, or the caller's on SQLite."""
    in_atomic_block = connections[transactions.database_alias()].in_atomic_block
    return in_atomic_block and (transactions.stays_here() or transactions.caller_is_the_writer())
