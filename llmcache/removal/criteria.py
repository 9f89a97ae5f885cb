"""What an invalidation is to remove: criteria as they are written, checked and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, TypeVar, Unpack, get_origin

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist

from llmcache.background import transactions
from llmcache.conf import settings
from llmcache.exceptions import InvalidArgument, InvalidArgumentType
from llmcache.keys.forms import path_of
from llmcache.policy import read_name, read_tags
from llmcache.store.rows import columns
from llmcache.store.rows.search import can_search
from llmcache.store.rows.tier import Selection

if TYPE_CHECKING:
    from llmcache.models import CacheEntryQuerySet
T = TypeVar("T")

KEYS_PER_QUERY: Final = 1000
# More keys are not named in the audit row. What was asked before and comes late is not stored then,
# whatever its key: at worst an answer is asked for again.
MOST_KEYS_NAMED: Final = 1000
KEY: Final = re.compile("[0-9a-f]{64}")


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
        for some in in_parts(sorted(self.keys or ()), KEYS_PER_QUERY):
            yield replace(self, keys=frozenset(some)).select

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """What `described` has described, where it names no keys and no selection."""
        return cls(
            **{name: read(described[name]) for name, read in READ.items() if name in described}
        )

    def described(self) -> dict[str, Any]:
        """What the audit row says, and what answers that come late are compared with."""
        described: dict[str, Any] = {}
        if self.keys is not None:
            few = len(self.keys) <= MOST_KEYS_NAMED
            described = {"keys": sorted(self.keys)} if few else {"selected": len(self.keys)}
        for name, write in WRITTEN.items():
            value = getattr(self, name)
            if value is not None:
                described[name] = write(value)
        return described or {"everything": True}


#: How each criterion is written down, and what reads it again.
WRITTEN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "tags": sorted,
    "namespace": str,
    "model": columns.text,
    "response_model": columns.text,
    "before": datetime.isoformat,
    "text": columns.text,
    "selected": int,
}
READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("namespace", "model", "response_model", "text"), str),
    "tags": frozenset,
    "before": datetime.fromisoformat,
}


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


def read_criteria(**criteria: Unpack[InvalidationCriteria]) -> Criteria:
    """The criteria that `invalidate` was given. Raises `InvalidArgument`."""
    settings.compare()  # (each invalidation comes by)
    namespace, tags = criteria.get("namespace"), criteria.get("tags")
    read = Criteria(
        keys=_read_keys(criteria.get("keys")),
        tags=None if tags is None else read_tags(tags),
        namespace=None if namespace is None else read_name(namespace, "namespace"),
        model=criteria.get("model"),
        response_model=_read_response_model(criteria.get("response_model")),
        before=_read_moment(criteria.get("before")),
        text=_read_text(criteria.get("text")),
    )
    if not isinstance(read.model, str | None):
        raise InvalidArgumentType(f"model takes the name of a model, not {read.model!r}.")
    if (read == Criteria()) is not (criteria.get("everything") is True):
        raise InvalidArgument(
            "invalidate() takes criteria, or everything=True (--everything) to remove all entries "
            "of all namespaces; one of the two."
        )
    return read


def in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _read_keys(keys: Iterable[str] | None) -> frozenset[str] | None:
    if keys is None:
        return None
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise InvalidArgumentType(f"keys takes a list of keys, not {keys!r}.")
    read: list[Any] = list(keys)
    for key in read:
        if not (isinstance(key, str) and KEY.fullmatch(key)):
            raise InvalidArgument(f"a key has 64 hex digits, as key_for() gives it; not {key!r}.")
    return frozenset(read)


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
        if not can_search(transactions.database_alias()):
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
        # (as the project keeps times)
        if timezone.is_naive(before):
            return timezone.make_aware(before) if django_settings.USE_TZ else before
        in_default = timezone.get_default_timezone()
        return before if django_settings.USE_TZ else timezone.make_naive(before, in_default)
    raise InvalidArgumentType(f"before takes a datetime or a timedelta, not {before!r}.")
