"""The ledger: each call is told to it, added up in the process, and written to `UsageHour`.

To be told costs a call about a microsecond: it is put into a queue, without a lock. (A lock would
not do: a stream that is given up may be told by the garbage collector, at any moment, on a thread
that holds it.) What has been told is added up by the hour and all that `Group` names, and written a
few seconds later, by one statement for many rows that adds to what is there. So many processes may
write at once, and no call is lost or counted twice.

What a process that is killed had not written is lost: the calls of some seconds. (And when a
connection breaks at the very commit, nobody can tell whether it was one: then it is written again.)
While the database cannot be written to, the sums stay in memory. When they are too many, groups
that are new are put together: then it is not known any more whose calls they were, but each is
counted.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.db import connections, transaction

from llmcache.background.database import persistently
from llmcache.background.transactions import database_alias
from llmcache.breakers import Use, must_be_up
from llmcache.discretion import without_content
from llmcache.outcomes import NO_RECEIPT, Call, Tier, captures
from llmcache.resilience.failsafe import failing_safe
from llmcache.store.rows import upsert
from llmcache.store.rows.columns import label, moment
from llmcache.usage import hits
from llmcache.usage.buffer import Flusher

logger = logging.getLogger("llmcache")

HOUR: Final = 3600
# So many calls wait at most to be added up.
MOST_TOLD: Final = 10_000
# So many groups are told apart while the database cannot be written to.
MOST_GROUPS: Final = 50_000


@dataclass(slots=True)
class Sums:
    """What is added up of calls; money in billionths of a US dollar."""

    calls: int = 0
    stored: int = 0
    unpriced: int = 0
    input_tokens_saved: int = 0
    output_tokens_saved: int = 0
    cost_saved: int = 0
    microseconds_saved: int = 0
    input_tokens_spent: int = 0
    output_tokens_spent: int = 0
    cost_spent: int = 0
    bytes_stored: int = 0


SUMS: Final = tuple(each.name for each in fields(Sums))


class Group(NamedTuple):
    """What calls that are added up have in common; `hour` in seconds since the epoch."""

    hour: int
    namespace: str
    provider: str
    model: str
    response_model: str
    outcome: str
    tier: str
    reason_code: str

    def roughly(self) -> Group:
        """The same but for what there may be very many of."""
        return self._replace(namespace="", model="", response_model="", reason_code="")

    def digest(self) -> str:
        """Of all but the hour: as a key, the names would be too long for some databases."""
        names = "\0".join(self[1:])
        return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()


KEY: Final = ("hour", "hours", "digest")
COLUMNS: Final = (*KEY, "day", *Group._fields[1:], *SUMS)


def record(call: Call, started: float) -> None:
    """Show `call`, begun at `started` (`time.perf_counter`), to the captures, and count it."""
    call.seconds = time.perf_counter() - started
    for calls in captures.get():
        calls.append(call)
    if call.tier is not None:
        hits.count(call.key)
    _told.append((time.time(), call))
    if flusher.is_asleep:
        flusher.wake()
    if len(_told) >= MOST_TOLD:
        _add_up_if_free()


def flush() -> None:
    """Write what has been told so far."""
    flusher.flush()


def add(groups: dict[Group, list[int]], hours: int = 1) -> None:
    """Add to the rows of these groups; each has its sums, in the order of `SUMS`.

    In one transaction: all of it or nothing. `hours`: 1, or 24 where an hour is a whole day.
    """
    alias = database_alias()
    connection = connections[alias]
    most = (connection.features.max_query_params or 50 * len(COLUMNS)) // len(COLUMNS)
    # In one order: two processes that lock the same rows do not wait for each other.
    rows = sorted(_row(connection.ops, group, hours, sums) for group, sums in groups.items())
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        for start in range(0, len(rows), most):
            some = rows[start : start + most]
            values = upsert.values(["%s"] * len(COLUMNS), len(some))
            table = apps.get_model("llmcache", "UsageHour")
            sql = upsert.statement(connection, table, COLUMNS, values, unique=KEY, added=SUMS)
            cursor.execute(sql, [value for row in some for value in row])


def _row(ops: Any, group: Group, hours: int, sums: list[int]) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    began = ops.adapt_datetimefield_value(moment(group.hour))
    day = ops.adapt_datefield_value(datetime.fromtimestamp(group.hour, tz=UTC).date())
    return began, hours, group.digest(), day, *group[1:], *sums


def _add_up_if_free() -> None:
    """Add up, unless somebody is at it."""
    if _lock.acquire(blocking=False):
        try:
            _add_up()
        finally:
            _lock.release()


def _add_up() -> None:
    """Add what was told to the sums. For who holds the lock."""
    while _told:
        told_at, call = _told.popleft()
        try:
            group, facts = _group(told_at, call), _facts(call)
        except Exception as error:  # noqa: BLE001 - law A
            logger.warning("llmcache: a call could not be counted: %s", without_content(error))
        else:
            _add(group, facts)


def _add(group: Group, facts: Sequence[int]) -> None:
    if group not in _sums and len(_sums) >= MOST_GROUPS:
        group = group.roughly()
    sums = _sums.get(group)
    if sums is None:
        _sums[group] = list(facts)
    else:
        for number, fact in enumerate(facts):
            sums[number] += fact


def _group(told_at: float, call: Call) -> Group:
    return Group(
        int(told_at) // HOUR * HOUR,
        label(call.namespace),
        label(call.provider),
        label(call.model),
        label(call.response_model),
        str(call.outcome),
        str(call.tier or ""),
        str(call.reason_code or ""),
    )


def _facts(call: Call) -> tuple[int, ...]:
    """What `call` adds to the sums."""
    # A copy without a receipt has saved something, and nobody knows how much.
    saved = call.saved or NO_RECEIPT
    spent = call.spent or NO_RECEIPT
    is_served, was_asked = call.tier is not None, call.spent is not None
    is_unpriced = (is_served and saved.cost is None) or (was_asked and spent.cost is None)
    took = round(call.seconds * 1_000_000)
    return (
        1,
        int(call.stored),
        int(is_unpriced),
        saved.input_tokens or 0,
        saved.output_tokens or 0,
        saved.cost or 0,
        max(0, (saved.microseconds or 0) - took),
        spent.input_tokens or 0,
        spent.output_tokens or 0,
        spent.cost or 0,
        call.size,
    )


def _write(is_same_database: bool) -> bool:
    global _sums
    with _lock:
        _add_up()
        sums, _sums = _sums, {}
    if sums and is_same_database and not _is_written(sums):
        with _lock:
            for group, facts in sums.items():
                _add(group, facts)
        flusher.wake()
        return False
    return True


def _is_written(sums: dict[Group, list[int]]) -> bool:
    with failing_safe(Tier.DURABLE, "count calls in"):
        must_be_up(Tier.DURABLE, Use.WRITE)
        persistently(partial(add, sums))
        return True
    return False


def _forget() -> None:
    """At the start, and in a forked child: what was told there is for the parent to write."""
    global _told, _sums, _lock
    _told, _sums, _lock = deque(), {}, threading.Lock()


_told: deque[tuple[float, Call]]
_sums: dict[Group, list[int]]
_lock: threading.Lock
_forget()
flusher: Final = Flusher("count calls in", _write, _forget)
