"""Removing answers before they expire: by key, tag, namespace, model, response model or age."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from asgiref.sync import sync_to_async
from django.utils import timezone

from llmcache import signals
from llmcache.background import database, transactions
from llmcache.exceptions import InvalidArgumentType
from llmcache.outcomes import Tier
from llmcache.reasons import Reason
from llmcache.removal import audit
from llmcache.removal.criteria import (
    MOST_KEYS_NAMED,
    Criteria,
    InvalidationCriteria,
    read_criteria,
)
from llmcache.removal.engine import Removal
from llmcache.resilience.failsafe import failing_safe
from llmcache.result import Result
from llmcache.store import evictions, local
from llmcache.store.batches import count
from llmcache.store.rows.tier import Selection

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Invalidated:
    """What an invalidation did: how many entries it removed, and the tiers not yet done.

    `pending` is empty when nothing that was stored before is served any more. ``hot`` in it means
    that copies may still be served until `pending_until` at the latest; their removal goes on
    being tried, so mostly it is sooner. ``local``, with ``LLMCACHE["LOCAL_TTL"]`` only: other
    processes may serve copies of their own until then. ``durable`` means that rows are left, and
    `pending_until` is None: call it again. `id` is the primary key of its `Invalidation`, None when
    that could not be written.
    """

    entries: int = 0
    pending: tuple[Tier, ...] = ()
    pending_until: datetime | None = None
    id: int | None = None


class InvalidationArguments(InvalidationCriteria, total=False):
    """The arguments of `invalidate`."""

    by: str
    progress: Progress | None


def invalidate(
    *,
    keys: Iterable[str] | None = None,
    tags: Iterable[str] | None = None,
    namespace: str | None = None,
    model: str | None = None,
    response_model: Any = None,
    before: datetime | timedelta | None = None,
    text: str | None = None,
    everything: bool = False,
    by: str = "",
    progress: Progress | None = None,
) -> Invalidated:
    """Remove entries from all tiers. Several criteria narrow.

    When it has returned with nothing pending, nobody is served what was stored before it began. An
    answer that fits the criteria, and whose question was asked before, is not stored any more.

    It is written down first, as an `Invalidation`; if that is impossible, no row is removed (hot
    copies of `keys` are, while that tier can be reached). The rows go in batches of some hundred,
    each in a short transaction.

    It does not take part in the caller's transaction, but for SQLite, which allows one writer:
    there the rows come back if the caller rolls back, and until the commit other connections
    still see them (`pending` says ``durable``).

    Args:
        keys: keys of 64 hex digits, as `key_for` gives them. Copies whose rows are gone are
            removed, too.
        tags: entries with at least one of these labels.
        namespace: entries of this namespace.
        model: entries that this model answered, by the name that was sent to the provider.
        response_model: entries of this class (or ``list[...]``, ``Literal[...]``, ...), or of the
            class with this dotted path.
        before: entries stored before this moment, or longer ago than this `timedelta`.
        text: entries whose prompt has these words, as in a search on the web: ``"a phrase"``,
            ``or``, ``-not``. Takes PostgreSQL, and finds only prompts that were stored as they were
            sent (``STORE_REQUESTS`` is ``"full"``, without encryption). An answer that comes late
            is not stored, whatever its prompt.
        everything: must be True when no criterion is given. Copies whose rows are gone are removed,
            too, where the backend can tell which those are; else ``hot`` is pending.
        by: who wants it, for the audit trail; the first 255 characters count.
        progress: called after each batch with two numbers: how many entries are removed so far, and
            how many there were to remove. When it raises, it is not called again; the invalidation
            goes on to its end, and then its error is raised.

    Returns:
        How many entries were removed, and which tiers are not done (see `Invalidated`).

    Raises:
        InvalidArgument: (a `ValueError`) when neither criteria nor everything=True is given, or
            both, or one cannot be meant. Nothing has been written then.
    """
    if not isinstance(by, str):
        raise InvalidArgumentType(f"by takes the name of who invalidates, not {by!r}.")
    criteria = read_criteria(
        keys=keys,
        tags=tags,
        namespace=namespace,
        model=model,
        response_model=response_model,
        before=before,
        text=text,
        everything=everything,
    )
    return _carry_out(criteria, list(criteria.selections()), by, progress)


async def ainvalidate(**arguments: Unpack[InvalidationArguments]) -> Invalidated:
    """`invalidate` for a coroutine: the same arguments; the event loop goes on meanwhile.

    `progress` is called on another thread.
    """
    database.running_loop()
    work = partial(invalidate, **arguments)
    if await transactions.acaller_is_the_writer():
        return await sync_to_async(work)()
    return await database.arun_to_the_end(work)


def invalidate_selected(
    rows: CacheEntryQuerySet, *, by: str = "", progress: Progress | None = None
) -> Invalidated:
    """`invalidate` for the entries that `rows` picks, of which there may be any number."""

    def select(_: CacheEntryQuerySet) -> CacheEntryQuerySet:
        return rows

    first = database.run_removal(
        lambda: list(rows.order_by("pk").values_list("key", flat=True)[: MOST_KEYS_NAMED + 1])
    )
    if len(first) <= MOST_KEYS_NAMED:
        criteria = Criteria(keys=frozenset(first))
    else:
        criteria = Criteria(selected=count(select))
    return _carry_out(criteria, [select] if first else [], by, progress)


def count_entries(criteria: Criteria) -> int:
    """How many entries there are now for an invalidation with these criteria."""
    return sum(map(count, criteria.selections()))


def _carry_out(
    criteria: Criteria, selections: Sequence[Selection], by: str, progress: Progress | None
) -> Invalidated:
    removal, result = Removal(criteria, selections), Invalidated()
    told: Result[object] = Result()
    if selections:
        for done, total in _removing(removal, by, counts=progress is not None):
            # (an invalidation is never left half done because telling failed)
            if progress is not None and told.error is None:
                told = Result.of(partial(progress, done, max(done, total)))
        pending = tuple(sorted(removal.pending))
        result = Invalidated(removal.entries, pending, _pending_until(pending), removal.pk)
    signals.send(
        signals.entries_invalidated, Invalidated, criteria=criteria, entries=result.entries
    )
    told.unwrap()
    return result


def _removing(removal: Removal, by: str, *, counts: bool) -> Iterator[tuple[int, int]]:
    """How many entries are removed after each batch, and how many there were. Raises nothing."""
    troubles: list[Reason] = []
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        removal.pk = audit.start(removal.criteria.described(), by)
        total = sum(map(count, removal.selections)) if counts else 0
        for _ in removal.carry_out():
            yield removal.entries, total
        removal.end()
    if troubles:
        removal.end_here()
        removal.pending.add(Tier.DURABLE)
    keys = removal.criteria.keys
    if removal.pk is not None:
        removal.finish(removal.pk, entries=removal.entries)
    elif keys and not evictions.remove_copies(keys):
        removal.pending.add(Tier.HOT)


def _pending_until(pending: Collection[Tier]) -> datetime | None:
    if not pending or Tier.DURABLE in pending:
        return None
    longest = timedelta(seconds=local.ttl() if Tier.LOCAL in pending else 0)
    if Tier.HOT in pending:
        longest += evictions.longest_life()
    return timezone.now() + longest
