"""Removing answers before they expire: by key, tag, namespace, model, response model or age."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, TypeVar, Unpack, get_origin

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist

from llmcache import signals
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.fields import can_search
from llmcache.keys import path_of
from llmcache.outcomes import Tier
from llmcache.policy import read_namespace, read_tags
from llmcache.store import columns, evictions, local, placement, removal
from llmcache.store.durable import Selection
from llmcache.store.removal import count
from llmcache.store.safety import failing_safe

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

T = TypeVar("T")
Progress = Callable[[int, int], object]

# The most rows that are removed in one transaction.
BATCH_ROWS: Final = 1000
KEYS_PER_QUERY: Final = 1000
# More keys are not named in the audit row. What was asked before and comes late is not stored then,
# whatever its key: at worst an answer is asked for again.
MOST_KEYS_NAMED: Final = 1000
KEY: Final = re.compile("[0-9a-f]{64}")


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


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which entries; several criteria narrow, and what is None does not count.

    `selected` is how many were chosen one by one in the admin, where they are too many to name.
    """

    keys: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    namespace: str | None = None
    model: str | None = None
    response_model: str | None = None
    before: datetime | None = None
    text: str | None = None
    selected: int | None = None

    def select(self, rows: CacheEntryQuerySet) -> CacheEntryQuerySet:
        if self.keys is not None:
            rows = rows.filter(key__in=self.keys)
        if self.tags is not None:
            rows = rows.tagged(self.tags)
        if self.namespace is not None:
            rows = rows.in_namespace(self.namespace)
        if self.model is not None:
            rows = rows.filter(model=columns.label(self.model))
        if self.response_model is not None:
            rows = rows.filter(response_model=columns.label(self.response_model))
        if self.before is not None:
            rows = rows.filter(created_at__lt=self.before)
        if self.text is not None:
            rows = rows.filter(words__matches=self.text)
        return rows

    def selections(self) -> Iterator[Selection]:
        """What to select, one after the other: no statement names more than some hundred keys."""
        if self.keys is None:
            yield self.select
        for some in _in_parts(sorted(self.keys or ()), KEYS_PER_QUERY):
            yield replace(self, keys=frozenset(some)).select

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """What `described` has described, where it names no keys and no selection."""
        tags, before = described.get("tags"), described.get("before")
        return cls(
            tags=None if tags is None else frozenset(tags),
            namespace=described.get("namespace"),
            model=described.get("model"),
            response_model=described.get("response_model"),
            before=None if before is None else datetime.fromisoformat(before),
            text=described.get("text"),
        )

    def described(self) -> dict[str, Any]:
        """What the audit row says, and what answers that come late are compared with."""
        keys: dict[str, Any] = {}
        if self.keys is not None:
            few = len(self.keys) <= MOST_KEYS_NAMED
            keys = {"keys": sorted(self.keys)} if few else {"selected": len(self.keys)}
        named = {
            "tags": None if self.tags is None else sorted(self.tags),
            "namespace": self.namespace,
            "model": self.model and columns.text(self.model),
            "response_model": self.response_model and columns.text(self.response_model),
            "before": self.before and self.before.isoformat(),
            "text": self.text and columns.text(self.text),
            "selected": self.selected,
        }
        described = keys | {name: value for name, value in named.items() if value is not None}
        return described or {"everything": True}


class InvalidationCriteria(TypedDict, total=False):
    """The arguments of `invalidate` that say which entries."""

    keys: Iterable[str] | None
    tags: Iterable[str] | None
    namespace: str | None
    model: str | None
    response_model: Any
    before: datetime | timedelta | None
    text: str | None
    everything: bool


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
        keys: keys of 64 hex digits, as `key_for` gives them.
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
        everything: must be True when no criterion is given.
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
    work = partial(invalidate, **arguments)
    if await placement.acaller_is_the_writer():
        return await sync_to_async(work)()
    return await placement.arun_to_the_end(work)


def invalidate_selected(
    rows: CacheEntryQuerySet, *, by: str = "", progress: Progress | None = None
) -> Invalidated:
    """`invalidate` for the entries that `rows` picks, of which there may be any number."""

    def select(_: CacheEntryQuerySet) -> CacheEntryQuerySet:
        return rows

    first = placement.run_removal(
        lambda: list(rows.order_by("pk").values_list("key", flat=True)[: MOST_KEYS_NAMED + 1])
    )
    if len(first) <= MOST_KEYS_NAMED:
        criteria = Criteria(keys=frozenset(first))
    else:
        criteria = Criteria(selected=count(select))
    return _carry_out(criteria, [select] if first else [], by, progress)


def read_criteria(**criteria: Unpack[InvalidationCriteria]) -> Criteria:
    """The criteria that `invalidate` was given. Raises `InvalidArgument`."""
    namespace, tags = criteria.get("namespace"), criteria.get("tags")
    read = Criteria(
        keys=_read_keys(criteria.get("keys")),
        tags=None if tags is None else read_tags(tags),
        namespace=None if namespace is None else read_namespace(namespace),
        model=_read_model(criteria.get("model")),
        response_model=_read_response_model(criteria.get("response_model")),
        before=_read_moment(criteria.get("before")),
        text=_read_text(criteria.get("text")),
    )
    if (read == Criteria()) is not (criteria.get("everything") is True):
        raise InvalidArgument(
            "invalidate() takes criteria, or everything=True to remove all entries of all "
            "namespaces; one of the two."
        )
    return read


def count_entries(criteria: Criteria) -> int:
    """How many entries there are now for an invalidation with these criteria."""
    return sum(map(count, criteria.selections()))


def _carry_out(
    criteria: Criteria, selections: Sequence[Selection], by: str, progress: Progress | None
) -> Invalidated:
    teller = _Teller(progress)
    result = _remove(criteria, selections, by, teller) if selections else Invalidated()
    signals.send(
        signals.entries_invalidated, Invalidated, criteria=criteria, entries=result.entries
    )
    teller.raise_error()
    return result


def _remove(
    criteria: Criteria, selections: Sequence[Selection], by: str, teller: _Teller
) -> Invalidated:
    troubles: list[str] = []
    audited: int | None = None
    entries, pending = 0, set[Tier]()
    with failing_safe(Tier.DURABLE, "remove from", troubles):
        audited, newest = removal.begin(criteria.described(), by)
        teller.begin(selections)
        for batch in _batches(selections, newest):
            entries += batch.removed
            pending |= evictions.evict_when_committed(batch.keys, batch.noted)
            teller.tell(entries)
    if not troubles and not _all_copies_are_gone():
        pending.add(Tier.HOT)
    local.clear() if criteria.keys is None else local.drop(criteria.keys)
    if troubles:
        pending.add(Tier.DURABLE)
    if audited is not None:
        with failing_safe(Tier.DURABLE, "note an invalidation in"):
            removal.finish(audited, entries, ", ".join(sorted(pending)))
    elif criteria.keys and not evictions.remove_copies(criteria.keys):
        pending.add(Tier.HOT)
    if local.ttl():
        pending.add(Tier.LOCAL)
    return Invalidated(
        entries,
        tuple(sorted(pending)),
        _pending_until(pending),
        audited,
    )


def _all_copies_are_gone() -> bool:
    """Also of rows that another process has removed, which may not have come to the copies yet.

    In a caller's transaction they wait for its end, as the rows do.
    """
    return placement.caller_is_the_writer() or evictions.finish_all_evictions()


def _batches(selections: Sequence[Selection], newest: int) -> Iterator[removal.Batch]:
    pace = removal.Pace(most=BATCH_ROWS)
    for select in selections:
        for window in removal.windows(select, newest):
            yield from removal.remove(window, pace)


def _pending_until(pending: Collection[Tier]) -> datetime | None:
    if not pending or Tier.DURABLE in pending:
        return None
    longest = timedelta(seconds=local.ttl() if Tier.LOCAL in pending else 0)
    if Tier.HOT in pending:
        longest += evictions.longest_life()
    return timezone.now() + longest


class _Teller:
    """Tells how far it is. An invalidation is never left half done because telling failed."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._total = 0
        self._error: Exception | None = None

    def begin(self, selections: Sequence[Selection]) -> None:
        if self._progress is not None:
            self._total = sum(map(count, selections))

    def tell(self, done: int) -> None:
        if self._progress is None or self._error is not None:
            return
        try:
            self._progress(done, max(done, self._total))
        except Exception as error:  # noqa: BLE001 - raised when all is done
            self._error = error

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _read_keys(keys: Iterable[str] | None) -> frozenset[str] | None:
    if keys is None:
        return None
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise InvalidArgumentType(f"keys takes a list of keys, not {keys!r}.")
    return frozenset(map(_read_key, keys))


def _read_key(key: object) -> str:
    if isinstance(key, str) and KEY.fullmatch(key):
        return key
    raise InvalidArgument(f"a key has 64 hex digits, as key_for() gives it; not {key!r}.")


def _read_model(model: str | None) -> str | None:
    if model is not None and not isinstance(model, str):
        raise InvalidArgumentType(f"model takes the name of a model, not {model!r}.")
    return model


def _read_response_model(response_model: Any) -> str | None:
    if response_model is None or isinstance(response_model, str):
        return response_model
    if isinstance(response_model, type) or get_origin(response_model) is not None:
        return path_of(response_model)
    raise InvalidArgumentType(
        f"response_model takes a class or its dotted path, not {response_model!r}."
    )


def _read_text(text: str | None) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidArgumentType(f"text takes words, not {text!r}.")
    if not text.strip():
        raise InvalidArgument("text takes at least one word.")
    # (that there is no such database is no error of the caller's: law A)
    with suppress(ImproperlyConfigured, ConnectionDoesNotExist):
        if not can_search(placement.database_alias()):
            raise InvalidArgument(
                "prompts cannot be searched on this database: text= takes PostgreSQL."
            )
    return columns.text(text)


def _read_moment(before: datetime | timedelta | None) -> datetime | None:
    if before is None:
        return None
    if isinstance(before, timedelta):
        try:
            return timezone.now() - before
        except OverflowError:
            raise InvalidArgument(f"before={before!r} is before the first of all days.") from None
    if isinstance(before, datetime):
        return _as_the_project_keeps_times(before)
    raise InvalidArgumentType(f"before takes a datetime or a timedelta, not {before!r}.")


def _as_the_project_keeps_times(moment: datetime) -> datetime:
    if timezone.is_naive(moment):
        return timezone.make_aware(moment) if settings.USE_TZ else moment
    if settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())
