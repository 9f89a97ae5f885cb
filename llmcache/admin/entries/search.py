"""The search of the list: what a term may mean, and what is said of it below the box."""

from __future__ import annotations

import re
from typing import Final

from django.db.models import Q
from django.utils.translation import gettext as _

from llmcache.background.transactions import database_alias
from llmcache.models import CacheEntryQuerySet
from llmcache.store.rows.search import are_searchable, can_search
from llmcache.values import LONGEST_NAME

KEY_PREFIX: Final = re.compile(r"[0-9a-f]{1,64}", re.IGNORECASE)
TAG: Final = "tag:"
# The last of all characters.
LAST: Final = "\U0010ffff"
# More words say nothing more, and each is looked up.
LONGEST_TERM: Final = 1_000


def find(rows: CacheEntryQuerySet, term: str, *, may_read: bool) -> CacheEntryQuerySet:
    """Those of `rows` that `term` means; `may_read`: who asks may read prompts.

    Not word by word, as Django does: a namespace may have blanks in it. Each condition is one that
    an index has. Prompts are searched only for those who may read them: else they could be guessed
    word by word.
    """
    term = term.strip().replace("\0", "")
    if not term:
        return rows
    if term.startswith(TAG):
        return rows.tagged([term.removeprefix(TAG).strip()])
    if len(term) > LONGEST_TERM:
        return rows.none()
    wanted = Q(pk__in=[])
    if len(term) <= LONGEST_NAME:
        wanted |= _begins("namespace", term) | _begins("model", term)
    if KEY_PREFIX.fullmatch(term):
        wanted |= _begins("key", term.lower())
    if may_read and can_search(database_alias()):
        wanted |= Q(words__matches=term)
    return rows.filter(wanted)


def is_of_words(term: str, *, may_read: bool) -> bool:
    """Whether `find` looks for the words of `term` in prompts, and for hardly anything else."""
    named = term.startswith(TAG) or KEY_PREFIX.fullmatch(term)
    return may_read and can_search(database_alias()) and not named


def help_text(may_read: bool) -> str:
    """What the search finds here, and why it does not find prompts."""
    found = _("Finds keys, namespaces and models by their beginning, and tags as in “tag:doc:42”.")
    if not may_read:
        return found
    return f"{found} {prompt_help()}"


def prompt_help() -> str:
    """Whether prompts are found by their words, and else why not."""
    if not can_search(database_alias()):
        return _("Prompts cannot be searched on this database: that takes PostgreSQL.")
    if not are_searchable():
        return _(
            "Prompts that are stored now cannot be searched: by the settings STORE_REQUESTS or "
            "ENCRYPTION_KEYS, their text is not kept as it was sent."
        )
    return _(
        "Prompts are found by their words; a “phrase in quotes”, “or” and “-not” are understood."
    )


def _begins(column: str, term: str) -> Q:
    """As a range, which an index serves on every database: all compare these by code points."""
    return Q(**{f"{column}__gte": term, f"{column}__lt": term + LAST})
