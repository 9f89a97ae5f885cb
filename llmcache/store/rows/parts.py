"""What entries were made of: the answers of calls inside of theirs, by key.

Whoever removes an entry removes these as well, or the next call would make the same answer of them;
and what was made of the entry, or that would still be served. Not what else was made of the same
parts: one answer that many are made of would take all of them along.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from django.db import connections
from django.db.models import Exists

from llmcache.background import transactions
from llmcache.store.rows.columns import moment

KEYS_PER_QUERY: Final = 1000
# Nobody removes such a row; others may lock it likewise. (SQLite has one writer.)
SHARED_LOCKS: Final = {"postgresql": "FOR KEY SHARE", "mysql": "LOCK IN SHARE MODE"}


def exist() -> bool:
    """Whether any entry was made of others."""
    return bool(transactions.rows("EntryPart").exists())


def any_row() -> Exists:
    """What `exist` says, as part of another query: the database looks once for all its rows."""
    return Exists(transactions.rows("EntryPart"))


def are_there(parts: Mapping[str, float], key: str) -> bool:
    """Whether the rows of `parts` are those that were used. They stay until the transaction ends.

    `parts`: the keys, and when each was asked for; 0 where no row is expected. `key` is that of
    what was made of them.
    """
    used = {key: moment(created) for key, created in parts.items() if created}
    # The row that is to be written is locked with them, in one order: as who removes them does.
    there = dict(_each([*used, key], _held))
    return all(there.get(key) == created for key, created in used.items())


def below(keys: Collection[str]) -> list[str]:
    """The keys of what the entries under `keys` were made of and is stored, the farthest first."""
    parts, entries = transactions.rows("EntryPart"), transactions.rows("CacheEntry")
    reached = _reached(keys, lambda some: parts.filter(entry__key__in=some).values_list("key"))
    stored = set(_each(reached, lambda some: entries.filter(key__in=some).values_list("key")))
    return [key for key in reached if (key,) in stored]


def above(keys: Collection[str]) -> list[str]:
    """The keys of what was made of the entries under `keys`, the farthest first."""
    parts = transactions.rows("EntryPart")
    return _reached(keys, lambda some: parts.filter(key__in=some).values_list("entry__key"))


def _reached(keys: Collection[str], step: Callable[[list[str]], Any]) -> list[str]:
    reached, newest = dict.fromkeys(keys), list(keys)
    while newest:
        found = dict.fromkeys(key for (key,) in _each(newest, step))
        newest = [key for key in found if key not in reached]
        reached |= dict.fromkeys(newest)
    return list(reached)[len(dict.fromkeys(keys)) :][::-1]


def _held(keys: list[str]) -> Any:
    rows = transactions.rows("CacheEntry").filter(key__in=keys)
    connection = connections[rows.db]
    if lock := SHARED_LOCKS.get(connection.vendor):
        picked = rows.order_by("pk").values("pk").query
        sql, parameters = picked.get_compiler(rows.db).as_sql()
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} {lock}", parameters)
    return rows.values_list("key", "created_at")


def _each(keys: list[str], query: Callable[[list[str]], Any]) -> Iterator[Any]:
    for start in range(0, len(keys), KEYS_PER_QUERY):
        yield from query(keys[start : start + KEYS_PER_QUERY])
