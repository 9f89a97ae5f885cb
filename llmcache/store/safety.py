"""The one place where a tier's failure stops: whatever a tier raises becomes a miss.

Only what a signal raises here to end what the caller is doing goes on to the caller.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, overload

from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError

from llmcache import signals
from llmcache.outcomes import Tier
from llmcache.store import recovery
from llmcache.store.breaker import Breaker, State, TierResting, breakers, must_be_up
from llmcache.store.twins import NoneIsFree

T = TypeVar("T")
D = TypeVar("D")

logger = logging.getLogger("llmcache")

# These tell of the settings, of our code or of one entry: trying again does not help.
LASTING: Final = (
    ImproperlyConfigured,
    SynchronousOnlyOperation,
    DataError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)
# The tier need not rest for them, nor for how busy this process is.
NOT_THE_TIERS_FAULT: Final = (TierResting, NoneIsFree, *LASTING)


@contextmanager
def failing_safe(tier: Tier, operation: str, troubles: list[str] | None = None) -> Iterator[None]:
    """Report what the block raises, add it to `troubles` in words, and go on after the block.

    What comes of the block counts for the breaker of `tier`. The block runs although the tier is
    given a rest, unless it begins with `must_be_up`; the functions of `hot` do.
    """
    breaker = breakers.get(tier)
    mark = breaker.begin() if breaker else 0
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is the place
        _failed(breaker, mark, tier, operation, error, troubles)
    else:
        # (`hot` itself says when that tier has answered: not every block gets as far)
        if breaker and tier is not Tier.HOT:
            breaker.succeeded(mark)


@contextmanager
def reporting(tier: Tier, operation: str, troubles: list[str] | None = None) -> Iterator[None]:
    """`failing_safe` for a block that does not ask `tier` itself: it says nothing of its health."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as above
        _note(tier, operation, error, troubles)


@overload
def attempt(
    tier: Tier, operation: str, work: Callable[[], T], troubles: list[str] | None = None
) -> T | None: ...


@overload
def attempt(
    tier: Tier,
    operation: str,
    work: Callable[[], T],
    troubles: list[str] | None = None,
    *,
    default: D,
) -> T | D: ...


def attempt(
    tier: Tier,
    operation: str,
    work: Callable[[], Any],
    troubles: list[str] | None = None,
    *,
    default: Any = None,
) -> Any:
    """What `work` returns; `default` when it fails, or when `tier` is given a rest."""
    if tier is not Tier.HOT:
        with failing_safe(tier, operation, troubles):
            must_be_up(tier)
            return work()
        return default
    # Without a block, which takes longer: each hit comes by.
    breaker = breakers[tier]
    mark = breaker.begin()
    try:
        if breaker.state is not State.CLOSED:
            must_be_up(tier)
        return work()
    except Exception as error:  # noqa: BLE001 - as above
        _failed(breaker, mark, tier, operation, error, troubles)
        return default


async def aattempt(
    tier: Tier, operation: str, work: Awaitable[T], troubles: list[str] | None = None
) -> T | None:
    """What `work` gives; None when it fails."""
    breaker = breakers[tier]
    mark = breaker.begin()
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - as above
        _failed(breaker, mark, tier, operation, error, troubles)
        return None


def report(tier: Tier, operation: str, error: Exception) -> str:
    """Log that `tier` failed to do `operation`, tell the signal `tier_failed`; the words for it."""
    trouble = f"the {tier} tier failed to {operation} ({type(error).__name__})"
    logger.warning("llmcache: %s: %s", trouble, error)
    signals.send(signals.tier_failed, tier, tier=tier, operation=operation, error=error)
    return trouble


def ends_the_task(error: Exception) -> bool:
    """Whether it is Celery's soft time limit, and no failure of ours.

    A signal handler raises it in the middle of whatever a task is doing.
    """
    billiard = sys.modules.get("billiard.exceptions")
    return isinstance(error, getattr(billiard, "SoftTimeLimitExceeded", ()))


def _failed(
    breaker: Breaker | None,
    mark: int,
    tier: Tier,
    operation: str,
    error: Exception,
    troubles: list[str] | None,
) -> None:
    _note(tier, operation, error, troubles)
    if breaker and not isinstance(error, NOT_THE_TIERS_FAULT) and breaker.failed(error, mark):
        recovery.begin(tier)


def _note(tier: Tier, operation: str, error: Exception, troubles: list[str] | None) -> None:
    if ends_the_task(error):
        raise error
    # That it rests was said when it began to.
    resting = isinstance(error, TierResting)
    trouble = str(error) if resting else report(tier, operation, error)
    if troubles is not None:
        troubles.append(trouble)
