"""Django signals of llmcache. Receivers are called with `send_robust`: an error in one is logged.

`call_answered(sender, call)`
    after each call of a client; `call` is a `llmcache.outcomes.Call`.
`entries_invalidated(sender, criteria, entries)`
    after an invalidation; `criteria` as they were given, `entries` the number removed.
`entries_expired(sender, entries)`
    after a run of the expiry that removed something.
`tier_failed(sender, tier, operation, error)`
    a tier could not do something, and the call went on without it.
`tier_changed(sender, tier, use, state, error)`
    a tier kept failing when it was read or written (`use` is ``"read"`` or ``"write"``), and is
    skipped for that from now on: its circuit is open (`state` is ``"open"``). Or it is well again
    (``"closed"``, and `error` is None). It is sent by a thread of llmcache's own.
`entry_refused(sender, key, tier, error)`
    stored bytes were damaged, tampered with, or do not validate any more: the call was a miss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal

from llmcache.discretion import without_content

logger = logging.getLogger("llmcache")

call_answered = Signal()
entries_invalidated = Signal()
entries_expired = Signal()
tier_failed = Signal()
tier_changed = Signal()
entry_refused = Signal()


def send(signal: Signal, sender: object, **arguments: Any) -> None:
    """Send robustly; nothing is built when nobody listens."""
    if signal.receivers:
        with _robustly():
            signal.send_robust(sender, **arguments)


async def asend(signal: Signal, sender: object, **arguments: Any) -> None:
    """`send` from a coroutine: receivers may be coroutines, and are awaited."""
    if signal.receivers:
        with _robustly():
            await signal.asend_robust(sender, **arguments)


@contextmanager
def _robustly() -> Iterator[None]:
    # `send_robust` itself raises when receivers are coroutines and the caller, a function, is on
    # an event loop: there is nobody to await them.
    try:
        yield
    except Exception as error:  # noqa: BLE001 - law A
        why = without_content(error)
        logger.warning("llmcache: a signal did not reach all of its receivers: %s", why)
