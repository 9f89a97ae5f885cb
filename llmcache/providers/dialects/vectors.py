"""The vectors of a response: each as the text in which its numbers came.

So they are the same to the bit when they are put into another response, and nobody has to write
thousands of numbers anew.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Iterator
from typing import Any, Final

from llmcache.providers.dialects.base import OutOfOrder

SPACE: Final = re.compile(r"[ \t\n\r]*")
NUMBERS: Final = frozenset({int, float})

_value_at: Final = json.JSONDecoder().raw_decode


def check_vector(value: Any) -> None:
    """Raise `OutOfOrder` for what is neither a list of numbers, nor such a list in base64."""
    if isinstance(value, str):
        # (raises `ValueError`)
        is_vector = bool(a2b_base64(value, strict_mode=True))
    else:
        is_vector = isinstance(value, list) and bool(value) and NUMBERS.issuperset(map(type, value))
    if not is_vector:
        raise OutOfOrder("there is no vector")


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each as it is written. For what was read as JSON before."""
    return {name: text[start:end] for name, start, end in _inside(text, _past_space(text, 0))}


def elements(text: str) -> list[str]:
    """The elements of a JSON array, each as it is written. For what was read as JSON before."""
    return [text[start:end] for _, start, end in _inside(text, _past_space(text, 0))]


def listed(pieces: list[str]) -> str:
    return f"[{','.join(pieces)}]"


def with_members(written: dict[str, str]) -> str:
    """A JSON object of members that are JSON themselves."""
    pairs = (f"{json.dumps(name)}:{text}" for name, text in written.items())
    return f"{{{','.join(pairs)}}}"


def _inside(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """The name of each member (of an element: none) of what begins there; its begin and end."""
    is_object = text[at] == "{"
    at = _past_space(text, at + 1)
    while text[at] not in "]}":
        name = ""
        if is_object:
            name, at = _value_at(text, at)
            at = _past_space(text, text.index(":", at) + 1)
        end = _end_of(text, at)
        yield name, at, end
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)


def _end_of(text: str, at: int) -> int:
    if text[at] not in "[{":
        return int(_value_at(text, at)[1])
    close = text.index("]" if text[at] == "[" else "}", at)
    # (nothing inside of a vector has to be looked at)
    is_flat = (
        text[at] == "[" and text.find("[", at + 1, close) < 0 and text.find('"', at, close) < 0
    )
    if not is_flat:
        ends = [end for _, _, end in _inside(text, at)]
        close = text.index(text[close], ends[-1] if ends else at)
    return close + 1


def _past_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match else at
