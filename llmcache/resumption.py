"""Invalidations in instalments: begun once, and carried on until they are done.

For the pages of the admin, where one request has not the time for a hundred thousand entries. What
`llmcache.invalidation` promises holds from the moment at which it is done; what is stored late does
not get in from the moment at which it has begun.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from llmcache import signals
from llmcache.invalidation import BATCH_ROWS, Criteria, Invalidated, count_entries
from llmcache.outcomes import Tier
from llmcache.store import evictions, instalments, local, placement, removal
from llmcache.store.safety import failing_safe

if TYPE_CHECKING:
    from llmcache.models import Invalidation

# Between two looks at one that is carried by another.
PAUSE_SECONDS: Final = 1.0


def begin(criteria: Criteria, by: str) -> int:
    """Count what an invalidation is to remove, and write it down; its primary key.

    The criteria name no keys. Raises what the database raises; then nothing has begun.
    """
    total = count_entries(criteria)
    return removal.begin(criteria.described(), by, total=total).pk


def carry_on(pk: int, *, seconds: float = math.inf, as_worker: bool = False) -> str:
    """Remove for about so many seconds, one batch at the least; trouble in words, or nothing.

    Nothing is done while another one carries it. The row of the `Invalidation` says how far it is.
    """
    troubles: list[str] = []
    token = None
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        token = instalments.claim(pk, as_worker=as_worker)
        if token is not None and _remove(pk, token, time.monotonic() + seconds):
            _finish(pk)
    if token is not None:
        with failing_safe(Tier.DURABLE, "note an invalidation in", troubles):
            instalments.release(pk, token)
    return "; ".join(troubles)


def carry_to_its_end(pk: int) -> str:
    """`carry_on` until it is done, whoever does it: for a worker. Stops at the first trouble."""
    while True:
        trouble = carry_on(pk, as_worker=True)
        if trouble or _is_done(instalments.find(pk)):
            return trouble
        time.sleep(PAUSE_SECONDS)


def _is_done(row: Invalidation | None) -> bool:
    return row is None or row.newest is None or row.finished_at is not None


def _remove(pk: int, token: str, until: float) -> bool:
    """Whether all is removed."""
    row = instalments.find(pk)
    select = Criteria.of(row.criteria).select
    pace = removal.Pace(most=BATCH_ROWS)
    for window in removal.windows(select, row.newest, row.reached):
        for batch in removal.remove(window, pace):
            evictions.evict_when_committed(batch.keys, batch.noted)
            if not instalments.note(pk, token, batch) or time.monotonic() > until:
                return False
        instalments.note_place(pk, max(window))
    return True


def _finish(pk: int) -> None:
    pending = set() if evictions.finish_all_evictions() else {Tier.HOT}
    local.clear()
    if local.ttl():
        pending.add(Tier.LOCAL)
    if placement.caller_is_the_writer():
        pending.add(Tier.DURABLE)  # until the caller's transaction ends
    if instalments.finish(pk, ", ".join(sorted(pending))):
        row = instalments.find(pk)
        signals.send(
            signals.entries_invalidated,
            Invalidated,
            criteria=Criteria.of(row.criteria),
            entries=row.entries,
        )
