"""What sets an entry apart from the nearest other one, for its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from llmcache.explanation.comparison import compare, nearest, subject_of
from llmcache.models import CacheEntry

# What the first character of a line in a diff makes of it; words that the style sheet knows.
KINDS: Final = {"+": "added", "-": "removed", "@": "gap"}


def read_neighbour(entry: CacheEntry, *, with_content: bool) -> dict[str, Any] | None:
    """The entry that differs from `entry` in the fewest parts; None when none can be compared.

    How they differ is read only `with_content`: it tells what was asked. All namespaces are looked
    at: whoever may see the page may see them all.
    """
    subject = subject_of(entry)
    other = nearest(subject, any_namespace=True)
    if other is None:
        return None
    comparison = compare(subject, other)
    differences = comparison.differences.items() if with_content else ()
    return {
        "entry": other,
        "comparison": comparison,
        # (no lines where it is not known how a part differs)
        "parts": [(part, [*diff_lines(shown or "")]) for part, shown in differences],
        "elsewhere": other.namespace != entry.namespace,
    }


def diff_lines(shown: str) -> Iterator[tuple[str, str]]:
    """The lines of a unified diff, or of a sentence in its place, each with its kind."""
    # The head of a diff, and a sentence in its place, come before the first gap.
    in_diff = False
    for line in shown.split("\n") if shown else ():
        in_diff = in_diff or line == "@@"
        yield line, KINDS.get(line[:1], "") if in_diff else "head"
