"""The plainest string that a regular expression accepts."""

from __future__ import annotations

import re
from typing import Any

# The standard library's own parser, so that the grammar is not written twice. It has no public
# name, which a stand-in for a model can live with.
from re import _parser  # type: ignore[attr-defined]  # isort: skip


def specimen(pattern: str) -> str | None:
    """A string that matches ``pattern``, or ``None`` where this simple way finds none."""
    try:
        parsed = _parser.parse(pattern)
        # Where a lookahead forbids the empty string, writing every optional part helps.
        attempts = (_all_written(parsed, times) for times in (0, 1))
        return next((text for text in attempts if re.search(pattern, text)), None)
    except (re.error, NotImplementedError, OverflowError):
        return None


def _all_written(nodes: Any, times: int) -> str:
    return "".join(_written(node, times) for node in nodes)


def _written(node: Any, times: int) -> str:
    operation, argument = str(node[0]), node[1]
    match operation:
        case "LITERAL":
            return chr(argument)
        case "ANY" | "NOT_LITERAL":
            return next(character for character in "ax" if ord(character) != argument)
        case "IN":
            return _member(argument)
        case "AT" | "ASSERT" | "ASSERT_NOT":
            return ""
        case "SUBPATTERN":
            return _all_written(argument[-1], times)
        case "BRANCH":
            return _all_written(argument[1][0], times)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, _, repeated = argument
            return _all_written(repeated, times) * max(int(least), times)
    raise NotImplementedError(operation)


_CATEGORIES = {
    "CATEGORY_DIGIT": "0",
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_NOT_SPACE": "a",
    "CATEGORY_NOT_WORD": " ",
}


def _member(choices: list[Any]) -> str:
    """One character of a class: of a negated one, the first that it does not exclude."""
    if str(choices[0][0]) == "NEGATE":
        return next(c for c in "aA0 -~" if not any(_covers(choice, c) for choice in choices[1:]))
    operation, argument = str(choices[0][0]), choices[0][1]
    if operation == "RANGE":
        return chr(argument[0])
    return chr(argument) if operation == "LITERAL" else _CATEGORIES[str(argument)]


def _covers(choice: Any, character: str) -> bool:
    operation, argument = str(choice[0]), choice[1]
    if operation == "RANGE":
        return bool(argument[0] <= ord(character) <= argument[1])
    if operation == "LITERAL":
        return bool(ord(character) == argument)
    return re.fullmatch(_CLASS_OF[str(argument)], character) is not None


_CLASS_OF = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_NOT_WORD": r"\W",
}
