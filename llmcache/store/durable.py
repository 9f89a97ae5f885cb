"""The durable tier: one row an entry. The truth."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connections, transaction
from django.db.models import F
from django.utils import timezone

from llmcache.store.placement import database_alias

if TYPE_CHECKING:
    from llmcache.models import CacheEntry, CacheEntryQuerySet


Selection = Callable[["CacheEntryQuerySet"], "CacheEntryQuerySet"]


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be stored: the sealed payload and what is known about it.

    Times are seconds since the epoch; `expires` None: never. Texts may be of any length and hold
    anything; they are made to fit.
    """

    key: str
    namespace: str
    payload: bytes
    created: float
    expires: float | None = None
    tags: frozenset[str] = frozenset()
    request: bytes | None = None
    provider: str = ""
    endpoint: str = ""
    model: str = ""
    mode: str = ""
    response_model: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency: float | None = None


def entries() -> CacheEntryQuerySet:
    """All rows, on the database that holds them."""
    return _model("CacheEntry").objects.using(database_alias())  # type: ignore[no-any-return]


def read(key: str, *, expired_too: bool = False) -> bytes | None:
    """The payload under `key`, or None when there is none or it has expired."""
    rows = entries() if expired_too else entries().fresh()
    return next(
        (bytes(data) for data in rows.filter(key=key).values_list("payload", flat=True)), None
    )


def read_many(keys: Collection[str], *, expired_too: bool = False) -> dict[str, bytes]:
    """The payloads that there are under `keys`, by one query."""
    rows = entries() if expired_too else entries().fresh()
    found = rows.filter(key__in=keys).values_list("key", "payload")
    return {key: bytes(data) for key, data in found}


def write(draft: Draft) -> None:
    """Store `draft`, in the place of what was under its key."""
    alias = database_alias()
    with transaction.atomic(using=alias):
        entry_id = _upsert(alias, draft)
        tags = _model("EntryTag").objects.using(alias)
        tags.filter(entry_id=entry_id).delete()
        if draft.tags:
            tags.bulk_create([tags.model(entry_id=entry_id, tag=tag) for tag in sorted(draft.tags)])


def delete(ids: Collection[int], recheck: Selection | None = None) -> int:
    """Remove the rows with these primary keys, which the caller has locked, and their tags.

    Rows that `recheck` does not pick any more stay. How many were removed.
    """
    alias = database_alias()
    # Past Django's collector, which would load each row with its payload first; and by primary
    # keys, since MariaDB locks whatever rows a subquery comes by.
    tags = _model("EntryTag").objects.using(alias).filter(entry_id__in=ids)
    tags._raw_delete(alias)  # noqa: SLF001
    doomed = entries().filter(pk__in=ids)
    return (recheck(doomed) if recheck else doomed)._raw_delete(alias) or 0  # noqa: SLF001


def take_write_lock() -> None:
    """Become the one writer of SQLite for the rest of the transaction, or wait for it.

    A transaction that has read, and only then writes, would fail at once if another has written
    in between.
    """
    entries().filter(pk=0).update(hits=F("hits"))


def _upsert(alias: str, draft: Draft) -> int:
    row = _row(draft)
    names_target = connections[alias].features.supports_update_conflicts_with_target
    entries().bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["key"] if names_target else None,
        update_fields=[
            f.name for f in row._meta.concrete_fields if not f.primary_key and f.name != "key"
        ],
    )
    # Not every database says which row it was.
    return int(entries().values_list("pk", flat=True).get(key=draft.key))


def _row(draft: Draft) -> CacheEntry:
    return _model("CacheEntry")(  # type: ignore[no-any-return]
        key=draft.key,
        namespace=draft.namespace,
        provider=label(draft.provider),
        endpoint=text(draft.endpoint),
        model=label(draft.model),
        mode=label(draft.mode),
        response_model=label(draft.response_model),
        digests=draft.digests,
        request=draft.request,
        payload=draft.payload,
        size=len(draft.payload),
        input_tokens=draft.input_tokens,
        output_tokens=draft.output_tokens,
        latency=draft.latency,
        created_at=moment(draft.created),
        expires_at=None if draft.expires is None else moment(draft.expires),
    )


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the project keeps times (``USE_TZ``)."""
    aware = datetime.fromtimestamp(seconds, tz=UTC)
    if django_settings.USE_TZ:
        return aware
    # The zone of the process, as of `timezone.now`; not the one that a view has activated.
    return timezone.make_naive(aware, timezone.get_default_timezone())


def text(value: str) -> str:
    """`value` without what some database refuses in text: NUL and lone surrogates."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def label(value: str) -> str:
    """`value` cut to the length of a column."""
    return text(value)[: _model("CacheEntry")._meta.get_field("model").max_length]


def _model(name: str) -> Any:
    # By name at the first use: a client may be made before the app registry is ready.
    return apps.get_model("llmcache", name)
