"""Fills a JSON schema from a text: with what is found there, else with the least that will do."""

from __future__ import annotations

import math
import re
from typing import Any

from project.standin.reading import Text

Schema = dict[str, Any]

MISSING: Any = object()
DEEPEST = 4
MOST_ITEMS = 50

# Where a schema says this about a string, no number may be put into it.
FIXED = frozenset({"const", "enum", "format", "pattern"})

# instructor asks for a list of models under the first name, of other types under the second.
LISTS_OF_INSTRUCTOR = ("tasks", "content")

EXAMPLES_OF_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00",
    "duration": "PT0S",
    "email": "nobody@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def fill(schema: Schema, text: str) -> Any:
    """A JSON value for the schema. The same schema and text always give the same value.

    Args:
        schema: a JSON schema as Pydantic writes it, with its definitions inside. Types, choices,
            formats and bounds are kept to; a ``pattern`` only where a word of the text fits it.
        text: any text.
    """
    return _Filler(schema.get("$defs") or {}).value(schema, "", Text(text))


def varied(schema: Schema, value: Any, number: int) -> Any:
    """The value with ``number`` in the first string that is free for it; of a list, in each."""
    return _varied(schema, value, number, schema.get("$defs") or {})


def _varied(schema: Schema, value: Any, number: int, definitions: dict[str, Schema]) -> Any:
    schema = resolved(schema, definitions)
    if isinstance(value, list):
        part = schema.get("items") or {}
        return [_varied(part, item, number, definitions) for item in value]
    if isinstance(value, dict):
        parts = schema.get("properties") or {}
        new = {n: _varied(parts.get(n, {}), v, number, definitions) for n, v in value.items()}
        first = next((name for name in value if new[name] != value[name]), None)
        return value | {first: new[first]} if first else value
    changed = f"{value} ({number})"
    kinds = [o for o in (schema, *options_of(schema)) if o.get("type") == "string"]
    free = any(fits(o, changed) and not FIXED.intersection(o) for o in kinds)
    return changed if free and isinstance(value, str) else value


def resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema with its reference followed."""
    while "$ref" in schema:
        target = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        schema = target | {key: value for key, value in schema.items() if key != "$ref"}
    return schema


def options_of(schema: Schema) -> list[Schema]:
    if isinstance(kinds := schema.get("type"), list):
        return [schema | {"type": kind} for kind in kinds]
    options = schema.get("anyOf") or schema.get("oneOf") or []
    kinds = {option.get("type") for option in options}
    # A string beside a number is Pydantic's other way to write a decimal.
    return [one for one in options if one.get("type") != "string" or "number" not in kinds]


def fits(schema: Schema, value: Any) -> bool:
    """Whether a string or a number is within the bounds."""
    if isinstance(value, str):
        longest = schema.get("maxLength", math.inf)
        pattern = schema.get("pattern", "")
        return schema.get("minLength", 0) <= len(value) <= longest and bool(
            re.search(pattern, value)
        )
    return (
        schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < value
        and value < schema.get("exclusiveMaximum", math.inf)
        and math.remainder(value, schema.get("multipleOf", value or 1)) == 0
        and (schema.get("type") == "number" or isinstance(value, int))
    )


class _Filler:
    def __init__(self, definitions: dict[str, Schema], depth: int = 0) -> None:
        self.definitions = definitions
        self.depth = depth

    def value(self, schema: Schema, name: str, text: Text) -> Any:
        found = self.found(schema, name, text)
        return self.least(schema, name, text) if found is MISSING else found

    # What the text says

    def found(self, schema: Schema, name: str, text: Text) -> Any:
        schema = resolved(schema, self.definitions)
        if self.depth > DEEPEST:
            return MISSING
        if choices := _choices(schema):
            return next((c for c in choices if text.speaks_of(str(c))), MISSING)
        for option in options_of(schema):
            if (found := self.found(option, name, text)) is not MISSING:
                return found
        match schema.get("type"):
            case "object":
                return self._object_found(schema, text)
            case "array":
                return self._array_found(schema, name, text)
            case "string":
                return _string_found(schema, name, text)
            case "integer" | "number":
                return _number_found(schema, name, text)
            case "boolean":
                said = re.sub(r"^(?:is|has|wants|needs|can)_", "", name)
                return True if said and text.speaks_of(said) else MISSING
        return MISSING

    def _object_found(self, schema: Schema, text: Text) -> Any:
        inner, required = self._deeper(), schema.get("required", ())
        parts: dict[str, Schema] = schema.get("properties") or {}
        found = {name: inner.found(part, name, text) for name, part in parts.items()}
        said = {name for name, value in found.items() if value is not MISSING}
        if not said or (text.is_passage and not said.issuperset(required)):
            return MISSING
        return {
            name: inner.least(part, name, text) if found[name] is MISSING else found[name]
            for name, part in parts.items()
            if name in said or name in required
        }

    def _array_found(self, schema: Schema, name: str, text: Text) -> Any:
        if schema.get("prefixItems"):
            return MISSING
        part = resolved(schema.get("items") or {}, self.definitions)
        found = list(self._several(part, name, text))[: schema.get("maxItems", MOST_ITEMS)]
        return found if found and len(found) >= schema.get("minItems", 0) else MISSING

    def _several(self, part: Schema, name: str, text: Text) -> list[Any]:
        if choices := _choices(part):
            return [choice for choice in choices if text.speaks_of(str(choice))]
        match part.get("type"):
            case "integer" | "number":
                return [n for n in text.numbers if fits(part, n)]
            case "string":
                return [one for one in text.all_of(name, part.get("format")) if fits(part, one)]
            case "array" | "boolean" | "null":
                return []
        for passages in text.passages() if self.depth <= 2 else ():
            found = [self._deeper().found(part, "", passage) for passage in passages]
            if len(some := [value for value in found if value is not MISSING]) > 1:
                return some
        whole = self._deeper().found(part, "", Text(text.text, is_passage=True))
        return [] if whole is MISSING else [whole]

    # The least that is allowed

    def least(self, schema: Schema, name: str, text: Text) -> Any:
        schema = resolved(schema, self.definitions)
        if choices := _choices(schema):
            return choices[0]
        if options := options_of(schema):
            if any(option.get("type") == "null" for option in options):
                return None
            # The way out of a recursive model is an option that does not come back to it.
            return self.least(options[-1 if self.depth > DEEPEST else 0], name, text)
        if "default" in schema:
            return schema["default"]
        match schema.get("type"):
            case "object":
                return self._least_object(schema, text)
            case "array":
                return self._least_array(schema, name, text)
            case "integer" | "number":
                return _least_number(schema, text)
            case "boolean":
                return False
            case "null":
                return None
        return _least_string(schema, text)

    def _least_object(self, schema: Schema, text: Text) -> dict[str, Any]:
        parts, required = schema.get("properties") or {}, schema.get("required") or ()
        return {name: self._deeper().value(parts[name], name, text) for name in required}

    def _least_array(self, schema: Schema, name: str, text: Text) -> list[Any]:
        inner = self._deeper()
        part = schema.get("items") or {}
        fixed = [inner.value(one, name, text) for one in schema.get("prefixItems") or ()]
        fewest = schema.get("minItems", 0) - len(fixed)
        if self.depth == 1 and name in LISTS_OF_INSTRUCTOR:
            several = next((way for way in text.passages() if len(way) > 1), text.passages()[0])
            values = [inner.value(part, "", passage) for passage in several[:3]]
            made_up = [one for place, one in enumerate(values) if one not in values[:place]]
            if len(made_up) >= fewest:
                return made_up[: schema.get("maxItems")]
        return fixed + [inner.least(part, name, text) for _ in range(fewest)]

    def _deeper(self) -> _Filler:
        return _Filler(self.definitions, self.depth + 1)


def _choices(schema: Schema) -> list[Any]:
    return schema.get("enum") or ([schema["const"]] if "const" in schema else [])


def _string_found(schema: Schema, name: str, text: Text) -> Any:
    kind = schema.get("format")
    if kind in EXAMPLES_OF_FORMATS:
        labelled = Text(text.labelled(name) or "").all_of(name, kind)
        return next(iter(labelled + text.all_of(name, kind)), MISSING)
    said = (text.string(name) or "")[: schema.get("maxLength")]
    return said if said and fits(schema, said) else MISSING


def _number_found(schema: Schema, name: str, text: Text) -> Any:
    labelled = Text(text.labelled(name) or "").numbers
    said = next(text.unread_numbers, None) if text.is_passage else next(iter(labelled), None)
    return said if said is not None and fits(schema, said) else MISSING


def _least_number(schema: Schema, text: Text) -> int | float:
    step = schema.get("multipleOf") or 1
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum", low))
    up, down = math.ceil(low / step) * step, math.floor(high / step) * step
    tried = (*text.numbers, 0, up, up + step, down, down - step, (low + high) / 2)
    return next((number for number in tried if fits(schema, number)), 0)


def _least_string(schema: Schema, text: Text) -> str:
    if schema.get("format") in EXAMPLES_OF_FORMATS:
        return EXAMPLES_OF_FORMATS[schema["format"]]
    longest = min(schema.get("maxLength", 200), 200)
    tried = [piece[:longest] for piece in (text.opening, *text.text[:2000].split()) if piece]
    return next((one for one in tried if fits(schema, one)), "-" * schema.get("minLength", 0))
