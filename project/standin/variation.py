"""Answers that differ from one call to the next, as a model's do."""

from __future__ import annotations

from typing import Any

from project.standin.figures import in_range
from project.standin.schemas import Schema, definitions_of, options_of, resolved
from project.standin.strings import fits

# A string or a number under one of these says something that no number may be put into.
FIXED = ("const", "enum", "format", "pattern")


def with_number(schema: Schema, value: Any, number: int) -> Any:
    """The value with ``number`` in it, and still what ``schema`` allows: in a string if it can.

    Of an object one field changes, of a list every item does.
    """
    return _Numbered(definitions_of(schema), number).value(schema, value)


class _Numbered:
    def __init__(self, definitions: dict[str, Schema], number: int) -> None:
        self.definitions = definitions
        self.number = number

    def value(self, schema: Schema, value: Any) -> Any:
        schema = resolved(schema, self.definitions)
        for option in options_of(schema):
            changed = self.value(option, value)
            if changed != value:
                return changed
        match value:
            case dict():
                return self._object(schema, value)
            case list():
                return [self.value(schema.get("items") or {}, item) for item in value]
        if any(name in schema for name in FIXED):
            return value
        return (
            self._string(schema, value) if isinstance(value, str) else self._figure(schema, value)
        )

    def _object(self, schema: Schema, value: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        # Strings first: a figure may be one that the others must add up to.
        for name in sorted(value, key=lambda name: not isinstance(value[name], str)):
            changed = self.value(properties.get(name) or {"const": None}, value[name])
            if changed != value[name]:
                return value | {name: changed}
        return value

    def _string(self, schema: Schema, value: str) -> str:
        changed = f"{value} ({self.number})"
        return changed if schema.get("type") == "string" and fits(schema, changed) else value

    def _figure(self, schema: Schema, value: Any) -> Any:
        if schema.get("type") not in ("integer", "number") or isinstance(value, bool | None):
            return value
        return value + self.number if in_range(schema, value + self.number) else value
