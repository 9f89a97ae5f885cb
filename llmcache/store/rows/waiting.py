"""Answers that wait to be written (on SQLite), and are served from here meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from llmcache.background import database
from llmcache.background.forks import now_and_in_children
from llmcache.store.records import Draft
from llmcache.store.rows import late_answers

#: What waits, by its key: the draft, and the generation recorded before its question was asked.
drafts: Final[dict[str, tuple[Draft, int | None]]] = {}


def add(draft: Draft, generation: int | None) -> None:
    """Keep `draft` until it is written, or could not be: see `discard`."""
    drafts[draft.key] = draft, generation


def discard(draft: Draft) -> None:
    """`draft` is to be found in the rows now, or nowhere; a newer one under its key stays."""
    if drafts.get(draft.key, (None,))[0] is draft:
        del drafts[draft.key]


def get(key: str) -> Draft | None:
    """What waits under `key`, unless it was invalidated since. Raises what the database raises."""
    draft, generation = drafts.get(key, (None, None))
    if draft is not None and database.run(partial(late_answers.came_late, draft, generation)):
        discard(draft)
        return None
    return draft


def forget(criteria: dict[str, Any]) -> None:
    """Serve nothing any more that an invalidation with these criteria means.

    In a transaction of the caller's, the others do not see that one yet; and it may be undone.
    """
    for draft, _ in list(drafts.values()):
        if late_answers.fits(criteria, draft):
            discard(draft)


now_and_in_children(drafts.clear)
