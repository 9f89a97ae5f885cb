"""Rows that take the place of those that have their keys, or are added to them, on each database.

By hand: the ORM takes several times as long to put such a statement together as the database to
carry it out, and it cannot add. That of an entry is put together once for each kind of database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from llmcache.models import CacheEntry

# What a new answer leaves as it is.
LASTING: Final = {"key", "pinned"}


class Written(NamedTuple):
    """Where the row is, whether it is pinned, and whether it surely was not there before."""

    pk: int
    is_pinned: bool
    is_new: bool


def statement(
    connection: BaseDatabaseWrapper,
    model: Any,
    columns: Iterable[str],
    source: str,
    *,
    unique: Iterable[str],
    replaced: Collection[str] = (),
    added: Collection[str] = (),
) -> str:
    """The SQL that inserts what `source` gives (``VALUES ...`` or ``SELECT ...``) for `columns`.

    Of a row that has the same `unique` columns, those `replaced` become the new ones, and the new
    ones are added to those `added`.
    """
    quote, is_mysql = connection.ops.quote_name, connection.vendor == "mysql"
    table, new = quote(model._meta.db_table), "VALUES({0})" if is_mysql else "EXCLUDED.{0}"

    def listed(names: Iterable[str], form: str = "{0}") -> list[str]:
        return [form.format(quote(name)) for name in names]

    changes = listed(replaced, f"{{0}} = {new}") + listed(added, f"{{0}} = {table}.{{0}} + {new}")
    conflict = f"CONFLICT ({', '.join(listed(unique))}) DO UPDATE SET"
    return (
        f"INSERT INTO {table} ({', '.join(listed(columns))}) {source} "
        f"ON {'DUPLICATE KEY UPDATE' if is_mysql else conflict} {', '.join(changes)}"
    )


def values(places: Iterable[str], rows: int = 1) -> str:
    """What `statement` takes as its `source`, for so many rows with these placeholders each."""
    row = f"({', '.join(places)})"
    return f"VALUES {', '.join([row] * rows)}"


def upsert(alias: str, row: CacheEntry) -> Written:
    """Store `row`, in the place of the one that has its key."""
    connection, before = connections[alias], type(row).objects.using(alias).filter(key=row.key)
    was_there = connection.vendor != "postgresql" and before.exists()
    # (MariaDB could, but would not say then whether it was there)
    says_row = connection.features.can_return_columns_from_insert and connection.vendor != "mysql"
    kind = connection.vendor, says_row
    if kind not in _known:
        _known[kind] = _put_together(connection, type(row), says_row)
    sql, fields = _known[kind]
    parameters = [
        field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields
    ]
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        if says_row:
            pk, is_pinned, is_new = cursor.fetchone()
        else:
            # (2: there was a row; who looked a moment before did not see it)
            is_new = cursor.rowcount == 1
            pk, is_pinned = before.values_list("pk", "pinned").get()
    return Written(pk, bool(is_pinned), bool(is_new) and not was_there)


def _put_together(
    connection: BaseDatabaseWrapper, model: type[CacheEntry], says_row: bool
) -> tuple[str, list[Any]]:
    """The statement that stores a row, and the fields whose values it takes."""
    every: list[Any] = [*model._meta.concrete_fields]
    fields = [field for field in every if not (field.primary_key or field.generated)]
    places = [
        field.get_placeholder(None, None, connection) if hasattr(field, "get_placeholder") else "%s"
        for field in fields
    ]
    sql = statement(
        connection,
        model,
        [field.column for field in fields],
        values(places),
        unique=["key"],
        replaced=[field.column for field in fields if field.name not in LASTING],
    )
    if says_row:
        # (a row of PostgreSQL that nobody has updated yet has no `xmax`)
        is_new = "xmax = 0" if connection.vendor == "postgresql" else "1"
        pk, pinned = map(connection.ops.quote_name, ("id", "pinned"))
        sql = f"{sql} RETURNING {pk}, {pinned}, {is_new}"
    return sql, fields


_known: Final[dict[tuple[str, bool], tuple[str, list[Any]]]] = {}
