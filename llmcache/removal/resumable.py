"""Invalidations in instalments: begun once, and carried on until they are done.

For the pages of the admin, where one request has not the time for a hundred thousand entries. What
`removal.invalidate` promises holds from the moment at which it is done; what is stored late does
not get in from the moment at which it has begun.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from llmcache import signals
from llmcache.background import transactions
from llmcache.outcomes import Tier
from llmcache.reasons import Reason
from llmcache.removal import audit, claims
from llmcache.removal.criteria import Criteria
from llmcache.removal.invalidate import BATCH_ROWS, Invalidated, count_entries, evict_without_rows
from llmcache.resilience.failsafe import failing_safe
from llmcache.store import batches, evictions, local

if TYPE_CHECKING:
    from llmcache.models import Invalidation

# Between two looks at one that is carried by another.
PAUSE_SECONDS: Final = 1.0


def begin(criteria: Criteria, by: str) -> int:
    """Count what an invalidation is to remove, and write it down; its primary key.

    The criteria name no keys. Raises what the database raises; then nothing has begun.
    """
    total = count_entries(criteria)
    return audit.begin(criteria.described(), by, total=total).pk


def carry_on(pk: int, *, seconds: float = math.inf, as_worker: bool = False) -> str:
    """Remove for about so many seconds, one batch at the least; trouble in words, or nothing.

    Nothing is done while another one carries it. The row of the `Invalidation` says how far it is.
    """
    troubles: list[Reason] = []
    token = None
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        token = claims.claim(pk, as_worker=as_worker)
        if token is not None and _remove(pk, token, time.monotonic() + seconds):
            _finish(pk)
    if token is not None:
        with failing_safe(Tier.DURABLE, "note an invalidation in", troubles):
            claims.release(pk, token)
    return "; ".join(map(str, troubles))


def carry_to_its_end(pk: int) -> str:
    """`carry_on` until it is done, whoever does it: for a worker. Stops at the first trouble."""
    while True:
        trouble = carry_on(pk, as_worker=True)
        if trouble or _is_done(claims.find(pk)):
            return trouble
        time.sleep(PAUSE_SECONDS)


def _is_done(row: Invalidation | None) -> bool:
    return row is None or row.newest is None or row.finished_at is not None


def _remove(pk: int, token: str, until: float) -> bool:
    """Whether all is removed."""
    row = claims.find(pk)
    select = Criteria.of(row.criteria).select
    pace = batches.Pace(most=BATCH_ROWS)
    for window in batches.windows(select, row.newest, row.reached):
        for batch in batches.remove_with_parts(window, pace):
            evictions.evict_when_committed(batch.keys, batch.noted)
            if not claims.note(pk, token, batch) or time.monotonic() > until:
                return False
        claims.note_place(pk, max(window))
    return True


def _finish(pk: int) -> None:
    pending = evict_without_rows(Criteria.of(claims.find(pk).criteria))
    if evictions.may_come_back() or not evictions.finish_all_evictions():
        pending.add(Tier.HOT)
    local.clear()
    if local.ttl():
        pending.add(Tier.LOCAL)
    if transactions.caller_is_the_writer():
        pending.add(Tier.DURABLE)  # until the caller's transaction ends
    if claims.finish(pk, ", ".join(sorted(pending))):
        row = claims.find(pk)
        signals.send(
            signals.entries_invalidated,
            Invalidated,
            criteria=Criteria.of(row.criteria),
            entries=row.entries,
        )
