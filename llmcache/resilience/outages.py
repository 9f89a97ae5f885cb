"""Which processes go without the hot tier at the moment: a row for each, for people to see.

Nobody relies on these rows. They are written in the background, and what fails is left.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.breakers import Use, is_up
from llmcache.discretion import without_content
from llmcache.outcomes import Tier
from llmcache.values import LONGEST_NAME

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from llmcache.models import Outage

# A process that has not been heard of for longer is gone. (While it is there, it writes each time
# it finds the tier still down: at least every `LONGEST_PAUSE` seconds.)
GONE_AFTER: Final = timedelta(minutes=5)


def process() -> str:
    """What this process is called: its host, and its number there."""
    return f"{socket.gethostname()}:{os.getpid()}"[-LONGEST_NAME:]


def record(tier: Tier, use: Use, since: datetime, error: Exception) -> None:
    """Say that this process does not read, or not write, `tier`, and has not since then.

    Of the durable tier nothing is said: the rows are what is missing.
    """
    if tier is Tier.HOT:
        _write(partial(_record, tier, since, f"({use}) {without_content(error)}"))


def forget(tier: Tier) -> None:
    """This process has `tier` again, in one use; in the other, it may say so once more."""
    if tier is Tier.HOT:
        _write(lambda: transactions.rows("Outage").filter(process=process(), tier=tier).delete())


def current() -> QuerySet[Outage]:
    """The outages of processes that are still there, the longest first."""
    rows: QuerySet[Outage] = transactions.rows("Outage").filter(
        seen_at__gt=timezone.now() - GONE_AFTER
    )
    return rows.order_by("since", "pk")


def sweep() -> None:
    """Remove the rows of processes that are gone."""
    transactions.rows("Outage").filter(seen_at__lte=timezone.now() - GONE_AFTER).delete()


def _record(tier: Tier, since: datetime, error: str) -> None:
    sweep()
    # (this may have had to wait)
    if not is_up(tier):
        transactions.rows("Outage").update_or_create(
            process=process(),
            tier=str(tier),
            defaults={"since": since, "seen_at": timezone.now(), "error": error},
        )


def _write(work: Callable[[], object]) -> None:
    with suppress(Exception):
        database.run(work)


def _forget_at_exit() -> None:
    if not is_up(Tier.HOT):
        forget(Tier.HOT)


atexit.register(_forget_at_exit)
