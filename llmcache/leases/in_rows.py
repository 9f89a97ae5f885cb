"""Leases in the rows."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db.models import Q, Value
from django.db.models.functions import Concat, Left
from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.conf import settings
from llmcache.leases.flights import Ending
from llmcache.leases.place import NOTICE_SECONDS, Seen
from llmcache.leases.silence import is_silent
from llmcache.outcomes import Tier
from llmcache.store.rows import locks

# So many of them fit into a row. (A waiter looks every `acquire.LONGEST_PAUSE` seconds, and from a
# claim to its release it takes some milliseconds at least.)
MOST_RELEASED: Final = 30
# So long a lease in SQLite waits for the write lock: a call is not held up for it.
LOCK_SECONDS: Final = 0.2


class RowsPlace:
    """Leases as rows. Each statement stands alone: there is no transaction that others wait for."""

    tier = Tier.DURABLE
    patience = 0.0

    def seconds(self) -> float:
        return settings.lease_seconds

    def acquire(self, key: str, token: str) -> str | None:
        given_up = threading.Event()
        try:
            return database.run(partial(self._acquire_for, given_up, key, token))
        except TimeoutError:
            given_up.set()
            raise

    def observe(self, key: str, holder: str) -> Seen:
        return database.run(partial(self._observe, key, holder))

    def renew(self, key: str, token: str) -> None:
        ours = {"expires_at": _after(settings.lease_seconds)}
        database.run(lambda: _rows().filter(key=key, token=token).update(**ours))

    def free(self, key: str, token: str, ending: Ending) -> None:
        database.run(partial(self._free, key, token, ending))

    def _acquire_for(self, given_up: threading.Event, key: str, token: str) -> str | None:
        holder = locks.past_deadlocks(partial(self._acquire, key, token))
        # (nobody knows of a lease that came too late: all would wait for it)
        if given_up.is_set():
            self._free(key, token, Ending.ABANDONED)
        return holder

    def _acquire(self, key: str, token: str) -> str | None:
        # The seat of one that has ended, or whose holder is gone, is taken over.
        is_free = Q(token="") | Q(expires_at__lte=timezone.now())
        ours = {"token": token, "expires_at": _after(settings.lease_seconds)}
        with locks.impatient(transactions.database_alias(), LOCK_SECONDS):
            if _rows().filter(is_free, key=key).update(**ours):
                return None
            _rows().bulk_create([_rows().model(key=key, **ours)], ignore_conflicts=True)
        holder, expires_at = self._held(key) or ("", None)
        if holder in {token, ""} or not is_silent(key, (holder, expires_at)):
            return None if holder == token else holder
        silent = _rows().filter(key=key, token=holder, expires_at=expires_at)
        return None if silent.update(**ours) else ""

    def _held(self, key: str) -> tuple[str, Any] | None:
        row: Any = _rows().filter(key=key).values_list("token", "expires_at").first()
        return row  # type: ignore[no-any-return]

    def _observe(self, key: str, holder: str) -> Seen:
        row = _rows().filter(key=key).first()
        is_there = row is not None and holder and row.token == holder
        if is_there and row.expires_at > timezone.now():
            silent = is_silent(key, (holder, row.expires_at))
            return Seen.GONE if silent else Seen.ASKING
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


def _rows() -> Any:
    return apps.get_model("llmcache", "Lease").objects.using(transactions.database_alias())


def _after(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)
