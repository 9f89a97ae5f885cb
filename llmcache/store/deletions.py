"""Entries that others remove or change by Django's ORM, and tables that are emptied: copies go too.

What is deleted by a QuerySet, an instance or a cascade is recorded in the same transaction, and its
copies go when that is committed. So it is with `save`. SQL, `update` and `bulk_update` send no
signal: there the copies live until ``HOT_TTL``, unless `invalidate` is told the keys.

`flush` empties the tables, that of the epoch too: this process begins a new one, and the copies are
removed for the others. A test runner flushes after each test; there, beginning anew will do.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, Final

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_delete, post_migrate, post_save, pre_delete

from llmcache.background import database, transactions
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import failing_safe, reporting
from llmcache.store import evictions
from llmcache.store.hot import epochs

# A note names so many keys at most.
KEYS_PER_NOTE: Final = 1000


# The keys of rows that this thread is about to delete: first all are told, then all go.
_going: Final = threading.local()


def watch(app: AppConfig) -> None:
    """Have the functions below called."""
    entry = app.get_model("CacheEntry")
    pre_delete.connect(_about_to_go, sender=entry)
    post_delete.connect(_gone, sender=entry)
    post_save.connect(_saved, sender=entry)
    post_migrate.connect(_flushed, sender=app)


def _about_to_go(instance: Any, **_: Any) -> None:
    _going.__dict__.setdefault("keys", []).append(instance.key)


def _gone(using: str, **_: Any) -> None:
    _evict(_going.__dict__.pop("keys", []), using)


def _saved(instance: Any, created: bool, using: str, **_: Any) -> None:
    if not created:
        _evict([instance.key], using)


def _evict(keys: list[str], using: str) -> None:
    with reporting(Tier.DURABLE, "record an eviction in"):
        if not keys or using != transactions.database_alias():
            return
        for start in range(0, len(keys), KEYS_PER_NOTE):
            some = keys[start : start + KEYS_PER_NOTE]
            # (a savepoint: what fails here is not to undo what the caller does)
            with transaction.atomic(using=using):
                recorded = evictions.record(some)
            transaction.on_commit(
                partial(evictions.evict, some, recorded), using=using, robust=True
            )


def _flushed(using: str, **more: Any) -> None:
    if "plan" in more:  # `migrate` says what it has done
        return
    epochs.forget()
    if not database.may_put_off():
        return
    with failing_safe(Tier.DURABLE, "record an eviction in"):
        if using == transactions.database_alias():
            evictions.evict_without_rows(evictions.ALL)
