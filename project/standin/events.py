"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from project.standin.answers import as_json

DONE = "data: [DONE]\n\n"

LONGEST_PIECE = 16
FEWEST_PIECES = 4


def event(data: dict[str, Any], name: str | None = None) -> str:
    """One event, ready for the wire."""
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {as_json(data)}\n\n"


def pieces(text: str) -> Iterator[str]:
    """The text as a model lets go of it, a few characters at a time; a short one in several too."""
    size = min(LONGEST_PIECE, -(-len(text) // FEWEST_PIECES))
    for start in range(0, len(text), size or 1):
        yield text[start : start + size]
