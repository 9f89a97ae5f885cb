"""The one place where a tier's failure stops: whatever a tier raises becomes a miss.

Only what a signal raises here to end what the caller is doing goes on to the caller.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import (
    DEFAULT_DB_ALIAS,
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from llmcache import signals
from llmcache.background import database, transactions
from llmcache.breakers import CircuitOpen, NoneIsFree, State, Use, breakers, must_be_up
from llmcache.discretion import without_content
from llmcache.outcomes import Tier
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience import recovery
from llmcache.result import Result

T = TypeVar("T")

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
# What only reads: it says nothing of whether the tier can be written, and the other way round.
USES: Final = dict.fromkeys(
    ("find", "find the epoch of", "observe a lease in", "read", "read the epoch in"), Use.READ
)
# What SQLite, PostgreSQL and MariaDB say of a table that is not there.
NO_TABLE: Final = ("no such table", "does not exist", "doesn't exist")
# What pytest-django says in a test without its mark, and what Django's test cases raise.
UNMARKED: Final = "Database access not allowed"
FORBIDDEN: Final = "DatabaseOperationForbidden"
_hinted: Final[set[str]] = set()
# No circuit is opened for them, nor for how busy this process is.
NOT_THE_TIERS_FAULT: Final = (CircuitOpen, NoneIsFree, *LASTING)


@contextmanager
def failing_safe(
    tier: Tier, operation: str, troubles: list[Reason] | None = None
) -> Iterator[None]:
    """Report what the block raises, add it to `troubles`, and go on after the block.

    What comes of the block counts for the circuit of `tier`. The block runs although the
    circuit is open, unless it begins with `must_be_up`; the functions of `hot` do.
    """
    breaker = breakers.get((tier, USES.get(operation, Use.WRITE)))
    mark = breaker.mark if breaker else 0
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is the place
        _failed(mark, tier, operation, error, troubles)
    else:
        # (`hot` itself says when that tier has answered: not every block gets as far)
        if breaker and breaker.in_a_row and tier is not Tier.HOT:
            breaker.succeeded(mark)


@contextmanager
def reporting(tier: Tier, operation: str, troubles: list[Reason] | None = None) -> Iterator[None]:
    """`failing_safe` for a block that does not ask `tier` itself: it says nothing of its health."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as above
        _record(tier, operation, error, troubles)


def attempt(
    tier: Tier, operation: str, work: Callable[[], T], troubles: list[Reason] | None = None
) -> T | None:
    """What `work` returns; None when it fails, or when the circuit of `tier` is open."""
    # Without a block, and not by `tried`, which take longer: each hit comes by.
    use = USES.get(operation, Use.WRITE)
    breaker = breakers[tier, use]
    mark = breaker.mark
    try:
        if breaker.state is not State.CLOSED:
            must_be_up(tier, use)
        value = work()
    except Exception as error:  # noqa: BLE001 - as above
        _failed(mark, tier, operation, error, troubles)
        return None
    if breaker.in_a_row and tier is not Tier.HOT:
        breaker.succeeded(mark)
    return value


def tried(tier: Tier, operation: str, work: Callable[[], T]) -> Result[T]:
    """`attempt` for who has to know what the error was."""
    use = USES.get(operation, Use.WRITE)
    breaker = breakers[tier, use]
    mark = breaker.mark
    try:
        if breaker.state is not State.CLOSED:
            must_be_up(tier, use)
        result = Result(work())
    except Exception as error:  # noqa: BLE001 - as above
        _failed(mark, tier, operation, error, None)
        return Result(error=error)
    if breaker.in_a_row and tier is not Tier.HOT:
        breaker.succeeded(mark)
    return result


async def aattempt(
    tier: Tier, operation: str, work: Awaitable[T], troubles: list[Reason] | None = None
) -> T | None:
    """What `work` gives; None when it fails."""
    mark = breakers[tier, USES.get(operation, Use.WRITE)].mark
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - as above
        _failed(mark, tier, operation, error, troubles)
        return None


def report(tier: Tier, operation: str, error: Exception) -> Reason:
    """Log that `tier` failed to do `operation`, tell the signal `tier_failed`; the reason."""
    kind = type(error).__name__
    trouble = ReasonCode.TIER_FAILED(tier=tier, operation=operation, error=kind)
    hint = _hint(error)
    if not hint:
        logger.warning("llmcache: %s: %s", trouble, without_content(error))
    elif hint not in _hinted:
        _hinted.add(hint)
        logger.warning("llmcache: %s", hint)
    signals.send(signals.tier_failed, tier, tier=tier, operation=operation, error=error)
    return trouble


def _hint(error: Exception) -> str:
    """What has to be done about it, once for all calls; empty where that is not known."""
    said = str(error)
    if isinstance(error, (ProgrammingError, OperationalError)) and "llmcache_" in said:
        is_missing = any(words in said for words in NO_TABLE)
        return f"its tables are missing: run `{how_to_migrate()}`" if is_missing else ""
    if isinstance(error, RuntimeError) and said.startswith(UNMARKED):
        return "a test without a database stores nothing: mark it with `@pytest.mark.django_db`"
    if type(error).__name__ == FORBIDDEN:
        alias = transactions.database_alias()
        return (
            "a test stores nothing where its class does not name the database: write "
            f"`databases = {{{alias!r}, ...}}` in it; a SimpleTestCase becomes a TestCase"
        )
    if isinstance(error, database.HeldByATest):
        return (
            "in a TestCase, or with `@pytest.mark.django_db`, other threads than the test's own "
            "store and find no rows: make it a TransactionTestCase, or "
            "`@pytest.mark.django_db(transaction=True)`"
        )
    return ""


def how_to_migrate() -> str:
    """The command that makes the tables, in the database where they belong."""
    alias = transactions.database_alias()
    is_default = alias == DEFAULT_DB_ALIAS
    return "manage.py migrate" + ("" if is_default else f" llmcache --database {alias}")


def lasts(error: Exception) -> bool:
    """Whether to try again would not help."""
    return isinstance(error, LASTING) or bool(_hint(error))


def ends_the_task(error: Exception) -> bool:
    """Whether it is Celery's soft time limit, and no failure of ours.

    A signal handler raises it in the middle of whatever a task is doing.
    """
    billiard = sys.modules.get("billiard.exceptions")
    return isinstance(error, getattr(billiard, "SoftTimeLimitExceeded", ()))


def _failed(
    mark: int, tier: Tier, operation: str, error: Exception, troubles: list[Reason] | None
) -> None:
    use = USES.get(operation, Use.WRITE)
    breaker = breakers.get((tier, use))
    _record(tier, operation, error, troubles)
    is_its_fault = not (isinstance(error, NOT_THE_TIERS_FAULT) or lasts(error))
    if breaker and is_its_fault and breaker.failed(error, mark):
        recovery.start(tier, use)


def _record(tier: Tier, operation: str, error: Exception, troubles: list[Reason] | None) -> None:
    if ends_the_task(error):
        raise error
    # That the circuit is open was said when it was opened.
    is_open = isinstance(error, CircuitOpen)
    trouble = ReasonCode.CIRCUIT_OPEN(tier=tier) if is_open else report(tier, operation, error)
    if troubles is not None:
        troubles.append(trouble)
