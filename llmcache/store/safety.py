"""The one place where a tier's failure stops: whatever a tier raises becomes a miss."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from llmcache import signals
from llmcache.outcomes import Tier

logger = logging.getLogger("llmcache")


@contextmanager
def failing_safe(tier: Tier, operation: str, troubles: list[str] | None = None) -> Iterator[None]:
    """Report what the block raises, add it to `troubles` in words, and go on after the block."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is the place
        trouble = report(tier, operation, error)
        if troubles is not None:
            troubles.append(trouble)


def report(tier: Tier, operation: str, error: Exception) -> str:
    """Log that `tier` failed to do `operation`, tell the signal `tier_failed`; the words for it."""
    trouble = f"the {tier} tier failed to {operation} ({type(error).__name__})"
    logger.warning("llmcache: %s: %s", trouble, error)
    signals.send(signals.tier_failed, tier, tier=tier, operation=operation, error=error)
    return trouble
