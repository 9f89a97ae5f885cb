"""Background tasks, and handing work over to the queue that ``LLMCACHE["TASKS"]`` names.

Celery finds its tasks by importing this package; Django's queue finds each by its path.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from llmcache.conf import settings

with suppress(ImportError):  # without the extra "celery"
    import llmcache.tasks.on_celery  # noqa: F401


def refresh_later(key: str) -> bool:
    """Have a worker refresh the entry under `key`: ``LLMCACHE["REFRESH"]``.

    Returns whether a message was sent. False where no queue has workers, and raises when it cannot
    be reached; the calling process does it itself then. Whether the request can be rebuilt, the
    worker finds out, and logs it: that costs too much where the stale answer is served.
    """
    queue = _queue()
    return queue is not None and bool(queue.refresh_later(key))


def invalidate_later(pk: int) -> bool:
    """Tell a worker of an invalidation; False where no queue has workers.

    Whether a worker is there to hear of it, the row of the invalidation shows. Raises when the
    queue cannot be reached.
    """
    queue = _queue()
    return queue is not None and bool(queue.invalidate_later(pk))


def _queue() -> Any:
    """The module that hands over to the queue of the settings. Raises where it is not installed."""
    name = settings.tasks
    return None if name is None else import_module(f"llmcache.tasks.on_{name}")
