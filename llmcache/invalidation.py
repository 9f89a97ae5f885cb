"""Removing answers before they expire: by key, tag, namespace, model, response model or age."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack, get_origin

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from llmcache import signals
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.keys import path_of
from llmcache.outcomes import Tier
from llmcache.policy import read_namespace, read_tags
from llmcache.store import durable, placement
from llmcache.store.removal import remove_batch, remove_hot
from llmcache.store.safety import report

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet

BATCH_ROWS: Final = 1000
KEY: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Invalidated:
    """What an invalidation did: how many entries it removed, and the tiers not yet done.

    `pending` is empty when nothing that was stored before is served any more.
    """

    entries: int = 0
    pending: tuple[Tier, ...] = ()


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which entries; several criteria narrow, and what is None does not count."""

    keys: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    namespace: str | None = None
    model: str | None = None
    response_model: str | None = None
    before: datetime | None = None

    def select(self, rows: CacheEntryQuerySet) -> CacheEntryQuerySet:
        if self.keys is not None:
            rows = rows.filter(key__in=self.keys)
        if self.tags is not None:
            rows = rows.tagged(self.tags)
        if self.namespace is not None:
            rows = rows.in_namespace(self.namespace)
        if self.model is not None:
            rows = rows.filter(model=durable.label(self.model))
        if self.response_model is not None:
            rows = rows.filter(response_model=durable.label(self.response_model))
        if self.before is not None:
            rows = rows.filter(created_at__lt=self.before)
        return rows


def invalidate(
    *,
    keys: Iterable[str] | None = None,
    tags: Iterable[str] | None = None,
    namespace: str | None = None,
    model: str | None = None,
    response_model: Any = None,
    before: datetime | timedelta | None = None,
    everything: bool = False,
) -> Invalidated:
    """Remove entries from all tiers. Several criteria narrow.

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
        everything: must be True when no criterion is given.

    Returns:
        How many entries were removed, and which tiers are not done (see `Invalidated`).

    Raises:
        InvalidArgument: (a `ValueError`) when neither criteria nor everything=True is given, or
            both, or one cannot be meant.
    """
    criteria = Criteria(
        keys=_read_keys(keys),
        tags=None if tags is None else read_tags(tags),
        namespace=None if namespace is None else read_namespace(namespace),
        model=_read_model(model),
        response_model=_read_response_model(response_model),
        before=_read_moment(before),
    )
    if (criteria == Criteria()) is not (everything is True):
        raise InvalidArgument(
            "invalidate() takes criteria, or everything=True to remove all entries of all "
            "namespaces; one of the two."
        )
    result = _remove(criteria)
    signals.send(
        signals.entries_invalidated, Invalidated, criteria=criteria, entries=result.entries
    )
    return result


class InvalidationCriteria(TypedDict, total=False):
    """The arguments of `invalidate`."""

    keys: Iterable[str] | None
    tags: Iterable[str] | None
    namespace: str | None
    model: str | None
    response_model: Any
    before: datetime | timedelta | None
    everything: bool


async def ainvalidate(**criteria: Unpack[InvalidationCriteria]) -> Invalidated:
    """`invalidate` for a coroutine: the same arguments; the event loop goes on meanwhile."""
    return await placement.arun(partial(invalidate, **criteria), bounded=False)


def _remove(criteria: Criteria) -> Invalidated:
    entries, pending = 0, set()
    try:
        while (batch := remove_batch(criteria.select, BATCH_ROWS)).keys:
            entries += batch.removed
            if not remove_hot(batch.keys):
                pending.add(Tier.HOT)
            if placement.caller_is_the_writer():
                pending.add(Tier.DURABLE)
                # A lookup meanwhile may have brought the hot copies back.
                transaction.on_commit(
                    partial(remove_hot, batch.keys), using=placement.database_alias(), robust=True
                )
    except Exception as error:  # noqa: BLE001 - said in `pending`, as for any tier
        report(Tier.DURABLE, "remove from", error)
        pending.add(Tier.DURABLE)
    return Invalidated(entries, tuple(sorted(pending)))


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
