"""Tasks of Celery. They only delegate."""

from __future__ import annotations

from typing import Final

from celery import current_app, shared_task
from celery.signals import worker_process_shutdown

from llmcache.background import database
from llmcache.removal import expire, resumable
from llmcache.store import evictions
from llmcache.usage import hits, ledger, rollup, task_runs

# A stale entry that is still in use is handed over again, and an invalidation is carried on by its
# page: a worker that comes later has nothing to do.
MESSAGE_SECONDS: Final = 300


@shared_task(name="llmcache.expire_entries", ignore_result=True)
def expire_entries(batch_size: int = expire.BATCH_ROWS, max_batches: int | None = None) -> int:
    """Remove what has expired; schedule it every few minutes. May be run twice at once."""
    return expire.expire_entries(batch_size=batch_size, max_batches=max_batches)


@shared_task(name="llmcache.finish_evictions", ignore_result=True)
def finish_evictions() -> int:
    """Remove the hot copies that invalidations could not reach; schedule it every minute."""
    with task_runs.recorded(task_runs.FINISH_EVICTIONS) as run:
        run.done = evictions.finish_evictions()
    return run.done


@shared_task(name="llmcache.roll_up_usage", ignore_result=True)
def roll_up_usage() -> int:
    """Add the ledger's old hours up into days, and count what is stored; schedule it every hour."""
    return rollup.roll_up_usage()


@worker_process_shutdown.connect
def write_the_rest(**_: object) -> None:
    """A worker's process ends without what Python does at the end of others."""
    ledger.flush()
    hits.flush()
    database.finish()


@shared_task(name="llmcache.refresh_entry", ignore_result=True)
def refresh_entry(key: str) -> str:
    """Ask the model again for a stale entry. May be delivered twice: it asks once."""
    # It brings instructor and an SDK along: who hands over, or checks the settings, asks nobody.
    from llmcache.doors.replay import refresh_entry

    return refresh_entry(key)


def refresh_later(key: str) -> bool:
    refresh_entry.apply_async((key,), retry=False, expires=MESSAGE_SECONDS)
    return True


@shared_task(name="llmcache.invalidate", ignore_result=True)
def invalidate(pk: int) -> str:
    """Carry an invalidation that the admin has begun to its end. May be delivered twice."""
    return resumable.carry_to_its_end(pk)


def invalidate_later(pk: int) -> bool:
    if not current_app.conf.broker_url:
        return False
    invalidate.apply_async((pk,), retry=False, expires=MESSAGE_SECONDS)
    return True
