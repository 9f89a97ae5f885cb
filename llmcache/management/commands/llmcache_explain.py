"""``manage.py llmcache_explain``: whether a stored entry is served, and what sets it apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from llmcache.explanation.comparison import compare, compared_to_nearest, subject_of
from llmcache.explanation.diff import printable
from llmcache.explanation.explain import explain_entry, find, stored
from llmcache.management.base import LLMCacheCommand
from llmcache.models import CacheEntry
from llmcache.store.records import Found

BEGINNING: Final = re.compile(r"[0-9a-f]{6,64}", re.IGNORECASE)
MOST_NAMED: Final = 5
NOTHING_TO_COMPARE: Final = "none: there is nothing to compare with"

FACTS: Final = (
    *("response_model", "provider", "mode", "endpoint"),
    *("created_at", "expires_at", "last_hit_at", "hits", "size"),
)


class Command(LLMCacheCommand):
    help = (
        "Explains a stored entry: whether it is served and from where, the digests of the parts "
        "of its key, and the nearest other entry, or another one that is named, with what "
        "differs. Shows prompts, of all namespaces."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = "a key, or the beginning of one: 6 hex digits or more"
        parser.add_argument("key", metavar="KEY", help=f"The entry: {what}.")
        parser.add_argument(
            "other", metavar="OTHER", nargs="?", help=f"The entry to compare it with: {what}."
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        entry, other = _entry(options["key"]), options["other"]
        explanation, subject = explain_entry(entry), subject_of(entry)
        if other is None:
            relation, comparison = "nearest", compared_to_nearest(subject, any_namespace=True)
        else:
            relation, comparison = "other", compare(subject, _entry(other))
        facts = {name: getattr(entry, name) for name in FACTS}
        compared = None if comparison is None else asdict(comparison)
        told = {**asdict(explanation), **facts, "nearest": None, relation: compared}
        self.tell(
            options,
            told,
            [
                str(explanation),
                "\nfacts",
                *_lines(facts),
                f"\n{relation} entry {comparison or NOTHING_TO_COMPARE}",
            ],
        )


def _entry(beginning: str) -> CacheEntry:
    """The one entry whose key begins so. Raises `CommandError` when there is none, or several."""
    if not BEGINNING.fullmatch(beginning):
        raise CommandError(
            f"{beginning!r} is no beginning of a key: give 6 to 64 hex digits, as the list in the "
            "admin shows them."
        )
    found = find(beginning, MOST_NAMED + 1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(_missing(beginning))
    named = "".join(f"\n  {entry.key}" for entry in found[:MOST_NAMED])
    more = "\n  ..." if len(found) > MOST_NAMED else ""
    raise CommandError(f"Several keys begin with {beginning}. Give more digits:{named}{more}")


def _missing(key: str) -> str:
    said = (
        f"No entry is stored under {key}: it was invalidated, has expired and was removed, or "
        "never was. Why a call misses, llmcache.explain(client, ...) tells."
    )
    if len(key) == 64 and isinstance(stored(key.lower()), Found):
        said += (
            " The hot tier (fast copies) has a copy left, and may serve it until it expires there."
        )
    return said


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        shown = "-" if value in (None, "") else printable(str(value))
        yield f"  {name.replace('_', ' '):<15} {shown}"
