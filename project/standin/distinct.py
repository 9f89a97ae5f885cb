"""Values that must differ from each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from project.standin.figures import in_range
from project.standin.schemas import Schema


def unlike(values: Iterable[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(repr(value), value)
    return list(seen.values())


def varied(schema: Schema, value: Any, number: int) -> Any:
    """The ``number``-th of several least values that may not be the same."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if isinstance(value, bool) or not number:
        return value if not isinstance(value, bool) else bool(number)
    if isinstance(value, int | float):
        step = schema.get("multipleOf") or 1
        return next(
            (v for v in (value + number * step, value - number * step) if in_range(schema, v)),
            value,
        )
    if isinstance(value, str):
        return f"{value[: schema.get('maxLength', 200) - len(str(number))]}{number}"
    return value
