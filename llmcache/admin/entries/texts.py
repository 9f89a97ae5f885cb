"""Texts and JSON made fit for a page: of bounded length, and nothing that cannot be encoded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

# Nobody reads more in a page, and a browser stays quick. Small rows may unpack to far more.
LONGEST_TEXT: Final = 500_000

# From here on a text gets a box of its own to scroll in.
LONG_TEXT: Final = 1_500
MANY_LINES: Final = 24


@dataclass(frozen=True, slots=True)
class Text:
    """What a page shows of a text. It is not HTML, and never marked safe."""

    shown: str
    left_out: int = 0
    is_code: bool = False

    @property
    def is_long(self) -> bool:
        return len(self.shown) > LONG_TEXT or self.shown.count("\n") >= MANY_LINES


def words(text: str, *, is_code: bool = False) -> Text:
    """A text that somebody wrote."""
    shown = text[:LONGEST_TEXT]
    return Text(shown, len(text) - len(shown), is_code)


def code(value: Any) -> Text:
    """A value as JSON, indented unless it is too deep."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        text = json.dumps(value, ensure_ascii=False)
    return words(text, is_code=True)


def code_of(data: bytes | str) -> Text:
    """JSON as it is stored, indented; what cannot be parsed, as it is."""
    value = parse(data)
    return words(value, is_code=True) if isinstance(value, str) else code(value)


def parse(data: bytes | str) -> Any:
    """The value of JSON, without halves of surrogate pairs: no page can show them.

    What is not JSON, or is too deep, is a string.
    """
    text = data if isinstance(data, str) else data.decode(errors="replace")
    try:
        value = json.loads(text)
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return text
