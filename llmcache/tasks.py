"""Celery tasks. They only delegate."""

from __future__ import annotations

from celery import shared_task

from llmcache import expiry


@shared_task(name="llmcache.expire_entries", ignore_result=True)
def expire_entries(batch_size: int = expiry.BATCH_ROWS, max_batches: int | None = None) -> int:
    """Remove what has expired; schedule it every few minutes. May be run twice at once."""
    return expiry.expire_entries(batch_size=batch_size, max_batches=max_batches)
