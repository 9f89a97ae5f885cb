"""An invalidation that is carried on by one after the other, until it is done.

Its row says how far it is, and who carries it at the moment: a worker, or a request that has a
second for it. Whoever stops renewing his claim is taken over from. That two carry at once, because
one was believed gone, is harmless: each row is removed once, and the last to end removes the hot
copies that are noted of either.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from django.db.models import F, Q, Value
from django.utils import timezone

from llmcache.background.retry import persistently
from llmcache.removal.audit import invalidations
from llmcache.store.batches import Batch

# A carrier is believed gone when he was not heard of for so long.
CLAIM: Final = timedelta(seconds=15)
# A worker that was told gets so long to begin.
RESERVATION: Final = timedelta(seconds=4)
WORKER: Final = "a worker"


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
