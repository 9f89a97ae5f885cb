"""Invalidations in instalments: begun once, and carried on until they are done.

For the pages of the admin, where one request has not the time for a hundred thousand entries. What
`removal.invalidate` promises holds from the moment at which it is done; what is stored late does
not get in from the moment at which it has begun.

Its row says how far it is, and who carries it at the moment: a worker, or a request that has a
second for it. Whoever stops renewing his claim is taken over from. That two carry at once, because
one was believed gone, is harmless: each row is removed once, and the last to end removes the hot
copies that are noted of either.
"""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from django.db.models import F, Q, Value
from django.utils import timezone

from llmcache import signals
from llmcache.background.database import persistently
from llmcache.outcomes import Tier
from llmcache.reasons import Reason
from llmcache.removal import audit
from llmcache.removal.audit import invalidations
from llmcache.removal.criteria import Criteria
from llmcache.removal.engine import Removal
from llmcache.removal.invalidate import Invalidated, count_entries
from llmcache.resilience.failsafe import failing_safe
from llmcache.store.batches import Batch

# Between two looks at one that is carried by another.
PAUSE_SECONDS: Final = 1.0
# A carrier is believed gone when he was not heard of for so long.
CLAIM: Final = timedelta(seconds=15)
# A worker that was told gets so long to begin.
RESERVATION: Final = timedelta(seconds=4)
WORKER: Final = "a worker"


def start(criteria: Criteria, by: str) -> int:
    """Count what an invalidation is to remove, and write it down; its primary key.

    The criteria name no keys. Raises what the database raises; then nothing has begun.
    """
    total = count_entries(criteria)
    return audit.start(criteria.described(), by, total=total)


def carry_on(pk: int, *, seconds: float = math.inf, as_worker: bool = False) -> str:
    """Remove for about so many seconds, one batch at the least; trouble in words, or nothing.

    Nothing is done while another one carries it. The row of the `Invalidation` says how far it is.
    """
    troubles: list[Reason] = []
    token = None
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        token = claim(pk, as_worker=as_worker)
        if token is not None:
            _carry(pk, token, time.monotonic() + seconds)
    if token is not None:
        with failing_safe(Tier.DURABLE, "record an invalidation in", troubles):
            release(pk, token)
    return "; ".join(map(str, troubles))


def carry_to_its_end(pk: int) -> str:
    """`carry_on` until it is done, whoever does it: for a worker. Stops at the first trouble."""
    while True:
        trouble = carry_on(pk, as_worker=True)
        if trouble or not persistently(_unfinished(pk).exists):
            return trouble
        time.sleep(PAUSE_SECONDS)


def _carry(pk: int, token: str, until: float) -> None:
    row = find(pk)
    criteria = Criteria.of(row.criteria)
    removal = Removal(criteria, [criteria.select], pk, row.reached)
    for batch in removal.carry_out():
        is_mine = record(pk, token, batch, removal.reached)
        if not is_mine or time.monotonic() > until:
            return
    removal.end()
    if removal.finish(pk):
        entries = find(pk).entries
        signals.send(signals.entries_invalidated, Invalidated, criteria=criteria, entries=entries)


def find(pk: int) -> Any:
    """The row of the invalidation; None when there is none."""
    return persistently(invalidations().filter(pk=pk).first)


def reserve(pk: int) -> None:
    """Leave it to a worker for a moment."""
    _update(pk, carrier=WORKER, carried_until=timezone.now() + RESERVATION)


def claim(pk: int, *, as_worker: bool) -> str | None:
    """Become its carrier; what to show as such, None while another one is, or when it is done."""
    token, now = uuid4().hex, timezone.now()
    is_free = Q(carrier="") | Q(carried_until__lt=now)
    if as_worker:
        is_free |= Q(carrier=WORKER)
    claimed = persistently(
        lambda: _unfinished(pk).filter(is_free).update(carrier=token, carried_until=now + CLAIM)
    )
    return token if claimed else None


def record(pk: int, token: str, batch: Batch, reached: int) -> bool:
    """Count a batch, and write down up to which primary key all is removed.

    Whether its carrier still is the one who has shown `token`.
    """
    _update(pk, entries=F("entries") + Value(batch.removed), reached=reached)
    until = timezone.now() + CLAIM
    mine = _unfinished(pk).filter(carrier=token)
    return bool(persistently(lambda: mine.update(carried_until=until)))


def release(pk: int, token: str) -> None:
    """Let the next one carry it."""
    persistently(lambda: invalidations().filter(pk=pk, carrier=token).update(carrier=""))


def _update(pk: int, **facts: Any) -> None:
    persistently(lambda: invalidations().filter(pk=pk).update(**facts))


def _unfinished(pk: int) -> Any:
    return invalidations().filter(pk=pk, finished_at=None, total__isnull=False)
