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
from llmcache.outcomes import Tier
from llmcache.reasons import Reason
from llmcache.removal import audit, claims
from llmcache.removal.criteria import Criteria
from llmcache.removal.engine import Removal
from llmcache.removal.invalidate import Invalidated, count_entries
from llmcache.resilience.failsafe import failing_safe

if TYPE_CHECKING:
    from llmcache.models import Invalidation

# Between two looks at one that is carried by another.
PAUSE_SECONDS: Final = 1.0


def start(criteria: Criteria, by: str) -> int:
    """Count what an invalidation is to remove, and write it down; its primary key.

    The criteria name no keys. Raises what the database raises; then nothing has begun.
    """
    total = count_entries(criteria)
    return audit.start(criteria.described(), by, total=total).pk


def carry_on(pk: int, *, seconds: float = math.inf, as_worker: bool = False) -> str:
    """Remove for about so many seconds, one batch at the least; trouble in words, or nothing.

    Nothing is done while another one carries it. The row of the `Invalidation` says how far it is.
    """
    troubles: list[Reason] = []
    token = None
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        token = claims.claim(pk, as_worker=as_worker)
        if token is not None:
            _carry(pk, token, time.monotonic() + seconds)
    if token is not None:
        with failing_safe(Tier.DURABLE, "record an invalidation in", troubles):
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
    return row is None or row.total is None or row.finished_at is not None


def _carry(pk: int, token: str, until: float) -> None:
    row = claims.find(pk)
    criteria = Criteria.of(row.criteria)
    removal = Removal(criteria, [criteria.select], row.newest or 0, row.reached)
    for batch in removal.carry_out():
        is_mine = claims.record(pk, token, batch, removal.reached)
        if not is_mine or time.monotonic() > until:
            return
    removal.end()
    if removal.finish(pk):
        entries = claims.find(pk).entries
        signals.send(signals.entries_invalidated, Invalidated, criteria=criteria, entries=entries)
