"""Two values as lines of text, and what differs between them.

Pure: no database, no settings. Texts of prompts are long, and may hold anything; what comes out is
short, one screen wide, and can be printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import unified_diff
from functools import partial
from itertools import pairwise, takewhile
from typing import Any, Final

# A diff has at most so many lines, and is sought between so many on either side: the time that
# difflib takes grows with the product.
MOST_LINES: Final = 400
MOST_COMPARED: Final = 2_000

WIDTH: Final = 96
# Unchanged lines around a change.
AROUND: Final = 3

# The escapes of JSON, in pairs, so that the "n" after an escaped backslash is none.
ESCAPE: Final = re.compile(r"\\(.)")
SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+")
WORDS: Final = re.compile(rf".{{1,{WIDTH}}}(?:\s+|$)|.{{1,{WIDTH}}}", re.DOTALL)


def difference(stored: Any, asked: Any, names: tuple[str, str], *, keep_order: bool = False) -> str:
    """A unified diff from `stored` to `asked`; empty when they read the same.

    `names` are what the two are called in its head. Mappings are sorted; with `keep_order`, only
    the outermost. Line numbers are left out: nobody has seen the lines elsewhere.
    """
    before, after = lines_of(stored, keep_order), lines_of(asked, keep_order)
    if before == after:
        return ""
    # What is the same at both ends takes no time.
    start = _same_at_start(before, after)
    end = _same_at_start(before[start:][::-1], after[start:][::-1])
    first = max(0, start - AROUND)
    sides = [side[first : len(side) - end + AROUND] for side in (before, after)]
    old, new = (side[:MOST_COMPARED] for side in sides)
    lines = unified_diff(old, new, *names, n=AROUND, lineterm="")
    made = [printable("@@" if line.startswith("@@") else line) for line in lines]
    left_out = max(0, len(made) - MOST_LINES)
    if left_out or [old, new] != sides:
        more = f"{left_out} more lines" if left_out else "more lines"
        made[MOST_LINES:] = [f"({more} are not shown)"]
    return "\n".join(made)


def lines_of(value: Any, keep_order: bool = False) -> list[str]:
    """`value` as JSON over several lines, long texts broken after lines, sentences and words."""
    if isinstance(value, str) and len(value) <= WIDTH and value.isprintable():
        return [value]
    if keep_order and isinstance(value, dict):
        value = dict(sorted(value.items()))
    dumps = partial(json.dumps, value, ensure_ascii=False, sort_keys=not keep_order)
    try:
        text = dumps(indent=2)
    except RecursionError:
        text = dumps()
    return list(_wrapped(text))


def printable(line: str) -> str:
    """`line` with what cannot be seen, or would steer a terminal, written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in line
    )


def _wrapped(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        if len(line) <= WIDTH and r"\n" not in line:
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip(" ")) + 4)
        for number, piece in enumerate(_pieces(line)):
            yield indent + piece if number else piece


def _pieces(line: str) -> Iterator[str]:
    """`line` in pieces that a change elsewhere in the text does not move."""
    for text in _split_at(line, [m.end() for m in ESCAPE.finditer(line) if m[1] == "n"]):
        if len(text) <= WIDTH:
            yield text
            continue
        for sentence in _split_at(text, [m.end() for m in SENTENCE.finditer(text)]):
            yield from WORDS.findall(sentence)


def _split_at(text: str, places: list[int]) -> list[str]:
    pieces = [text[start:end] for start, end in pairwise([0, *places, len(text)])]
    if len(pieces) > 1 and not pieces[-1].strip('", '):
        # What only closes the text in JSON needs no line of its own.
        pieces[-2:] = ["".join(pieces[-2:])]
    return pieces


def _same_at_start(before: list[str], after: list[str]) -> int:
    pairs = zip(before, after, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
