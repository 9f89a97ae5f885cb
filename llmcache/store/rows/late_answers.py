"""Answers that come late: whose question was asked before an invalidation that fits them began."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db import connections
from django.utils import timezone

from llmcache.background import transactions
from llmcache.store.rows.columns import label, moment

if TYPE_CHECKING:
    from llmcache.store.records import Draft

# Where the generation is not known, clocks have to do, and those of two hosts differ.
CLOCK_SECONDS: Final = 60.0
# One that has not ended by then was killed.
UNDER_WAY: Final = timedelta(hours=1)


def generation() -> int:
    """How many invalidations have begun so far, to be recorded before a question is asked."""
    with connections[transactions.database_alias()].cursor() as cursor:
        cursor.execute(newest())
        return cursor.fetchone()[0] or 0


def newest() -> str:
    """What selects the generation; NULL where there was none."""
    return f"SELECT max(id) FROM {_table()}"  # noqa: S608 - no input


def came_late(draft: Draft, generation: int | None) -> bool:
    """Whether an invalidation that fits `draft` has begun since that `generation`."""
    with connections[transactions.database_alias()].cursor() as cursor:
        cursor.execute(begun_since(draft, generation))
        return any_fits(cursor.fetchall(), draft)


def begun_since(draft: Draft, generation: int | None) -> str:
    """What selects the invalidations that have begun since that `generation`, for `any_fits`.

    None: it is not known; then by the time when the question was asked. What is made of other
    answers comes too late for one that had begun before, too, and is under way: it may be made of
    what is about to be removed.
    """
    # By hand: the ORM takes as long for it as the rest of a write.
    if generation is None:
        condition = f"started_at >= {_literal(moment(draft.created - CLOCK_SECONDS))}"
    else:
        condition = f"id > {generation:d}"
        if draft.parts:
            since = _literal(timezone.now() - UNDER_WAY)
            condition += f" OR (finished_at IS NULL AND started_at > {since})"
    return f"SELECT criteria FROM {_table()} WHERE {condition}"  # noqa: S608 - no input


def any_fits(begun: Iterable[Any], draft: Draft) -> bool:
    """Whether one of the invalidations that `begun_since` selects means the entry of `draft`."""
    return any(fits(json.loads(criteria), draft) for (criteria,) in begun)


def _literal(moment: datetime) -> str:
    """A moment of ours in a statement."""
    return f"'{connections[transactions.database_alias()].ops.adapt_datetimefield_value(moment)}'"


def _table() -> str:
    name = apps.get_model("llmcache", "Invalidation")._meta.db_table
    return connections[transactions.database_alias()].ops.quote_name(name)


def fits(criteria: Any, draft: Draft) -> bool:
    """Whether an invalidation with these criteria means the entry that `draft` makes.

    In doubt it does: an answer that is not stored is asked for again.
    """
    try:
        return all(_agrees(name, value, draft) for name, value in criteria.items())
    except (AttributeError, TypeError, ValueError):
        return True


def _agrees(name: str, value: Any, draft: Draft) -> bool:
    match name:
        case "keys":
            return draft.key in value
        case "tags":
            return not draft.tags.isdisjoint(value)
        case "namespace":
            return bool(draft.namespace == value)
        case "model":
            return label(draft.model) == label(value)
        case "response_model":
            return label(draft.response_model) == label(value)
        case "before":
            return moment(draft.created) < datetime.fromisoformat(value)
        case _:  # everything; or a selection of rows, which nobody can look up any more
            return True
