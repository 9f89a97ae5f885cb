"""What sets an entry apart from the nearest other one, for its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llmcache.explanation import Comparison, compare, nearest, subject_of
from llmcache.models import CacheEntry

# What the first character of a line in a diff makes of it; words that the style sheet knows.
KINDS: Final = {"+": "added", "-": "removed", "@": "gap"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a difference. `kind` is empty for one that is the same on both sides."""

    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The nearest other entry, and how each part differs; no lines where that is not known."""

    entry: CacheEntry
    comparison: Comparison
    parts: tuple[tuple[str, tuple[Line, ...]], ...]
    elsewhere: bool


def read_neighbour(entry: CacheEntry, *, with_content: bool) -> Neighbour | None:
    """The entry that differs from `entry` in the fewest parts; None when none can be compared.

    How they differ is read only `with_content`: it tells what was asked. All namespaces are looked
    at: whoever may see the page may see them all.
    """
    subject = subject_of(entry)
    other = nearest(subject, any_namespace=True)
    if other is None:
        return None
    comparison = compare(subject, other)
    return Neighbour(
        entry=other,
        comparison=comparison,
        parts=tuple(
            (part, tuple(diff_lines(shown or "")))
            for part, shown in comparison.differences.items()
            if with_content
        ),
        elsewhere=other.namespace != entry.namespace,
    )


def diff_lines(shown: str) -> Iterator[Line]:
    """The lines of a unified diff, or of a sentence in its place."""
    # The head of a diff, and a sentence in its place, come before the first gap.
    in_diff = False
    for text in shown.split("\n") if shown else ():
        in_diff = in_diff or text == "@@"
        yield Line(text, KINDS.get(text[:1], "") if in_diff else "head")
