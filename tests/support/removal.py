"""Eight entries, and which of them are left."""

from __future__ import annotations

from typing import Any

from llmcache import store
from llmcache.models import PendingEviction
from llmcache.store.records import Found
from tests.support.backends import Backend
from tests.support.entries import draft

KEYS = [f"{number:064x}" for number in range(8)]


def fill(**columns: dict[int, Any]) -> None:
    """One entry for each key; `columns` maps a column to the numbers that differ."""
    for number, key in enumerate(KEYS):
        given = {name: values[number] for name, values in columns.items() if number in values}
        store.save(draft(key, **given))


def served() -> set[int]:
    """The numbers of the entries that are still served, by any tier."""
    return {number for number, key in enumerate(KEYS) if isinstance(store.lookup(key), Found)}


def notes(backend: Backend) -> list[list[str]]:
    rows = PendingEviction.objects.using(backend.database).order_by("pk")
    return [sorted(row.keys) for row in rows]
