"""Tasks of Django's own queue (Django 6.0). They only delegate.

What Celery's beat does at its times, the commands of `llmcache.management` do for cron.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.tasks import task
from django.tasks.backends.immediate import ImmediateBackend

from llmcache.removal import resumable

# A stale entry that is still in use is handed over again.
MESSAGE_SECONDS: Final = 300


@task
def refresh_entry(key: str, until: float) -> str:
    """Ask the model again for a stale entry, unless it is too late. May be delivered twice."""
    # (as in `llmcache.tasks.on_celery`)
    from llmcache.doors.replay import refresh_entry

    return refresh_entry(key) if time.time() < until else "too late"


@task
def invalidate(pk: int) -> str:
    """Carry an invalidation that the admin has begun to its end. May be delivered twice."""
    return resumable.carry_to_its_end(pk)


def refresh_later(key: str) -> bool:
    return _handed_over(refresh_entry, key, time.time() + MESSAGE_SECONDS)


def invalidate_later(pk: int) -> bool:
    return _handed_over(invalidate, pk)


def _handed_over(task: Any, *args: Any) -> bool:
    # Where tasks run at once, as by default, that would be no relief.
    if isinstance(task.get_backend(), ImmediateBackend):
        return False
    task.enqueue(*args)
    return True
