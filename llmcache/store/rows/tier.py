"""The durable tier: one row an entry. The truth."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db import connections, transaction
from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.breakers import Use
from llmcache.codec.envelope import ANSWER, reseal
from llmcache.outcomes import Tier
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience import recovery
from llmcache.store.records import Draft
from llmcache.store.rows import late_answers, locks, parts, search
from llmcache.store.rows.columns import label, moment, text
from llmcache.store.rows.search import can_search
from llmcache.store.rows.upsert import upsert

if TYPE_CHECKING:
    from llmcache.models import CacheEntry, CacheEntryQuerySet

Selection = Callable[["CacheEntryQuerySet"], "CacheEntryQuerySet"]


def entries() -> CacheEntryQuerySet:
    """All rows, on the database that holds them."""
    return transactions.rows("CacheEntry")  # type: ignore[no-any-return]


def read(key: str, *, expired_too: bool = False) -> tuple[bytes | None, int]:
    """The payload under `key`, None where there is none or it has expired; and the generation.

    (see `late_answers`; who finds nothing asks the model next, and one statement is quicker.)
    """
    connection = connections[transactions.database_alias()]
    # The ORM takes as long to put this together as the database to answer it.
    any_row, fresh_row = _selects(connection.vendor, connection.ops.quote_name)
    parameters: list[Any] = [key]
    if not expired_too:
        parameters.append(connection.ops.adapt_datetimefield_value(timezone.now()))
    with connection.cursor() as cursor:
        cursor.execute(any_row if expired_too else fresh_row, parameters)
        payload, newest = cursor.fetchone()
    return None if payload is None else bytes(payload), newest or 0


def _selects(vendor: str, quote: Callable[[str], str]) -> tuple[str, str]:
    """What reads the payload under a key; and that of an entry that expires after a moment."""
    known = _known_selects.get(vendor)
    if known is None:
        table, key, payload, expires = map(
            quote, (_model()._meta.db_table, "key", "payload", "expires_at")
        )
        any_row = f"SELECT {payload} FROM {table} WHERE {key} = %s"  # noqa: S608 - no input
        fresh_row = f"{any_row} AND ({expires} IS NULL OR {expires} > %s)"
        known = _known_selects[vendor] = (
            f"SELECT ({any_row}), ({late_answers.newest()})",
            f"SELECT ({fresh_row}), ({late_answers.newest()})",
        )
    return known


_known_selects: Final[dict[str, tuple[str, str]]] = {}


def read_many(keys: Collection[str], *, expired_too: bool = False) -> dict[str, bytes]:
    """The payloads that there are under `keys`, by one query."""
    rows = entries() if expired_too else entries().fresh()
    found = rows.filter(key__in=keys).values_list("key", "payload")
    return {key: bytes(data) for key, data in found}


@contextmanager
def held(keys: Collection[str]) -> Iterator[dict[str, tuple[bytes, float | None]]]:
    """Payloads of the fresh rows under `keys`, which nobody can remove meanwhile.

    With each, for how many seconds it is fresh; None: for ever.

    Rows that another transaction has at the moment are left out: nobody waits for them. Raises
    `locks.Busy` where there is one writer (SQLite), and it is another.
    """
    alias = transactions.database_alias()
    with locks.impatient(alias), transaction.atomic(using=alias):
        rows = locks.locked(entries().fresh().filter(key__in=keys), alias, skip=True)
        found, now = rows.values_list("key", "payload", "expires_at"), timezone.now()
        yield {
            key: (bytes(payload), None if expires is None else (expires - now).total_seconds())
            for key, payload, expires in found
        }


def write(
    draft: Draft, generation: int | None, *, replaced: Callable[[], object] | None = None
) -> Reason | None:
    """Store `draft`, in the place of what was under its key; why not, where it comes too late.

    `generation`: the one (see `late_answers`) before the question was asked; `replaced` is called
    when there may have been an answer before, and nobody sees the new one yet, or can take hold of
    its row.
    """
    alias = transactions.database_alias()
    with transaction.atomic(using=alias):
        begun = locks.shared(alias, late_answers.begun_since(draft, generation))
        if late_answers.any_fits(begun, draft):
            return ReasonCode.INVALIDATED()
        if draft.parts and not parts.are_there(draft.parts, draft.key):
            return ReasonCode.PARTS_GONE()
        written = upsert(alias, row_of(alias, draft))
        if written.is_pinned:
            never = {"expires_at": None, "stale_until": None}
            payload = reseal(ANSWER, draft.key, draft.payload, expires=None)
            entries().filter(pk=written.pk).update(payload=payload, **never)
        if not written.is_new:
            _delete_of([written.pk])
            if replaced is not None:
                replaced()
        _add_to(written.pk, "EntryTag", "tag", draft.tags)
        _add_to(written.pk, "EntryPart", "key", draft.parts.keys() - {draft.key})
    return None


def delete(ids: Collection[int]) -> int:
    """Remove the rows with these primary keys, which the caller has locked, and what is of them.

    How many were removed.
    """
    if connections[transactions.database_alias()].vendor == "postgresql":
        return _delete_at_once(ids)
    _delete_of(ids)
    doomed: Any = numbered(entries(), ids)
    return doomed._raw_delete(doomed.db) or 0  # noqa: SLF001


def _delete_at_once(ids: Collection[int]) -> int:
    """`delete` by one statement: the locks are held for one round trip, not for three."""
    connection = connections[transactions.database_alias()]
    entry, tag, part = (
        connection.ops.quote_name(apps.get_model("llmcache", name)._meta.db_table)
        for name in ("CacheEntry", "EntryTag", "EntryPart")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH tags AS (DELETE FROM {tag} WHERE entry_id = ANY(%(ids)s)), "  # noqa: S608 - no input
            f"parts AS (DELETE FROM {part} WHERE entry_id = ANY(%(ids)s)) "
            f"DELETE FROM {entry} WHERE id = ANY(%(ids)s)",
            {"ids": list(ids)},
        )
        return int(cursor.rowcount)


def _delete_of(ids: Collection[int]) -> None:
    """Remove the tags of these rows, and the notes of what they were made of."""
    for name in ("EntryTag", "EntryPart"):
        # Past Django's collector, which would load each row with its payload first; and by primary
        # keys, since MariaDB locks whatever rows a subquery comes by.
        rows = numbered(transactions.rows(name), ids, "entry_id")
        rows._raw_delete(rows.db)  # noqa: SLF001


def _add_to(pk: int, name: str, column: str, values: Collection[str]) -> None:
    if values:
        rows = transactions.rows(name)
        rows.bulk_create(rows.model(entry_id=pk, **{column: each}) for each in sorted(values))


def numbered(rows: Any, ids: Collection[int], column: str = "id") -> Any:
    """Those of `rows` that have one of `ids` in `column`.

    PostgreSQL gets one parameter in the place of hundreds: less than a tenth of our time.
    """
    if connections[rows.db].vendor == "postgresql":
        where = [f"{column} = ANY(%s)"]  # (a name of ours, never input)
        return rows.extra(where=where, params=[list(ids)])  # noqa: S610
    return rows.filter(**{f"{column}__in": ids})


def row_of(alias: str, draft: Draft) -> CacheEntry:
    """The row that `draft` makes."""
    kept_until = draft.expires if draft.stale_until is None else draft.stale_until
    return _model()(  # type: ignore[no-any-return]
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
        cost=draft.cost,
        latency=draft.latency,
        created_at=moment(draft.created),
        expires_at=None if draft.expires is None else moment(draft.expires),
        stale_until=None if kept_until is None else moment(kept_until),
        words=search.prompt_of(draft.key, draft.request) if can_search(alias) else None,
    )


def _model() -> Any:
    return apps.get_model("llmcache", "CacheEntry")


def _try_reading() -> None:
    database.run(entries().order_by("pk").values_list("pk").first)


def _try_writing() -> None:
    """Change no row. What may not be written refuses that as well."""

    def write_nothing() -> None:
        with locks.impatient(transactions.database_alias()):
            entries().filter(pk=-1).update(hits=0)

    with suppress(locks.Busy):  # another one can write
        database.run(write_nothing, writing=True)


recovery.tried_by(Tier.DURABLE, Use.READ, _try_reading)
recovery.tried_by(Tier.DURABLE, Use.WRITE, _try_writing)
