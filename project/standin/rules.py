"""Fills a JSON schema from a text by rules.

Three questions for each place in the schema: what does the text say (``_found``), must there be
an answer at all, and what is the least that the schema accepts (``_least``).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from typing import Any

from project.standin.choices import choice, neutral, score, speaks_of_name
from project.standin.distinct import unlike, varied
from project.standin.facts import Facts
from project.standin.figures import as_number, found_number, least_number
from project.standin.items import Item
from project.standin.positions import is_position, position_word
from project.standin.schemas import (
    MISSING,
    Schema,
    definitions_of,
    is_kind,
    options_of,
    resolved,
    type_of,
)
from project.standin.strings import fits, found_string, least_string, several_strings

# A stand-in need not find everything in a long text, it has to answer soon.
MOST_ITEMS = 50
MOST_LINES = 200
LONGEST_LINE = 1000
DEEPEST = 5
DEEPEST_LIST = 2
MOST_MADE_UP = 3

# instructor asks for a list of models under the first name, of other types under the second.
WRAPPED_LISTS = ("tasks", "content")


def fill(schema: Schema, text: str) -> Any:
    """A JSON value that satisfies ``schema``, with as much of ``text`` in it as rules can tell.

    The same schema and text always give the same value.

    Args:
        schema: a JSON schema as Pydantic writes it, with its definitions inside.
        text: any text; HTML is read without its markup.
    """
    return _plain(_Filler(definitions_of(schema)).value(schema, "", Facts(text)))


def _plain(value: Any) -> Any:
    """The value as JSON has it. Decimals stay exact until here: ``4.50``, not ``4.5``."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class _Filler:
    def __init__(self, definitions: dict[str, Schema], depth: int = 0) -> None:
        self.definitions = definitions
        self.depth = depth

    def value(self, schema: Schema, name: str, facts: Facts) -> Any:
        """What the text says, else the least that is allowed."""
        found = self.found(schema, name, facts)
        return self.least(schema, name, facts) if found is MISSING else found

    # What the text says

    def found(self, schema: Schema, name: str, facts: Facts) -> Any:
        schema = self.resolved(schema)
        if self.depth > DEEPEST:
            return MISSING
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return choice(schema["enum"], name, facts)
        if options := options_of(schema):
            return self._found_among(options, name, facts)
        return self._found_by_type(schema, name, facts)

    def _found_among(self, options: list[Schema], name: str, facts: Facts) -> Any:
        if self._is_decimal(options):
            number = self._found_among(
                [o for o in options if not is_kind(o, "string")], name, facts
            )
            return number if number is MISSING or number is None else str(number)
        for option in options:
            if not is_kind(option, "null"):
                found = self.found(option, name, facts)
                if found is not MISSING:
                    return found
        return MISSING

    def _is_decimal(self, options: list[Schema]) -> bool:
        # Pydantic offers a string next to the number where it means an exact decimal.
        kinds = {self.resolved(option).get("type") for option in options}
        return {"number", "string"} <= kinds <= {"number", "string", "null"}

    def _found_by_type(self, schema: Schema, name: str, facts: Facts) -> Any:
        match type_of(schema):
            case "object":
                return self._found_object(schema, facts)
            case "array":
                return self._found_array(schema, name, facts)
            case "string":
                return found_string(schema, name, facts)
            case "integer" | "number" as kind:
                return found_number(schema, name, facts, whole=kind == "integer")
            case "boolean":
                return True if speaks_of_name(name, facts) else MISSING
        return MISSING

    def _found_object(self, schema: Schema, facts: Facts) -> Any:
        inner = self._deeper()
        properties: dict[str, Schema] = schema.get("properties") or {}
        found = {name: inner.found(part, name, facts) for name, part in properties.items()}
        if all(value is MISSING or self._is_constant(properties[n]) for n, value in found.items()):
            return MISSING
        return self._completed(schema, found, facts)

    def _is_constant(self, schema: Schema) -> bool:
        return "const" in self.resolved(schema)

    def _completed(self, schema: Schema, found: dict[str, Any], facts: Facts) -> dict[str, Any]:
        inner = self._deeper()
        required = set(schema.get("required") or ())
        completed = {}
        for name, part in (schema.get("properties") or {}).items():
            if found.get(name, MISSING) is not MISSING:
                completed[name] = found[name]
            elif name in required:
                completed[name] = inner.least(part, name, facts)
        return self._with_free_keys(schema, completed, facts)

    def _with_free_keys(
        self, schema: Schema, filled: dict[str, Any], facts: Facts
    ) -> dict[str, Any]:
        part = schema.get("additionalProperties")
        part = part if isinstance(part, dict) else {}
        for name in schema.get("required") or ():
            if name not in filled:
                filled[name] = self._deeper().least(part, name, facts)
        for number in range(int(schema.get("minProperties") or 0) - len(filled)):
            filled[f"key_{number + 1}"] = self._deeper().least(part, "", facts)
        return filled

    def _found_array(self, schema: Schema, name: str, facts: Facts) -> Any:
        if schema.get("prefixItems"):
            return MISSING
        part = self.resolved(schema.get("items") or {})
        found = self._array_values(part, name, facts)
        most = min(int(schema.get("maxItems", MOST_ITEMS)), MOST_ITEMS)
        if schema.get("uniqueItems"):
            found = unlike(found)
        found = list(islice(found, most))
        return found if found and len(found) >= int(schema.get("minItems") or 0) else MISSING

    def _array_values(self, part: Schema, name: str, facts: Facts) -> Iterable[Any]:
        if "enum" in part:
            return [value for value in part["enum"] if score(value, facts)]
        if self._is_object(part):
            return self._array_of_objects(part, facts)
        if type_of(part) == "string":
            strings = several_strings(part, name, facts)
            return [value for value in strings if fits(part, value)]
        return []

    def _array_of_objects(self, part: Schema, facts: Facts) -> Iterable[Any]:
        if is_position(part):
            return [self._position(part, item) for item in facts.items]
        if self.depth > DEEPEST_LIST:
            return []
        by_line = self._one_of_each(part, facts.points[:MOST_LINES])
        if len(by_line) > 1 or len(facts.text) > LONGEST_LINE:
            return by_line
        finer = (self._one_of_each(part, some) for some in (facts.clauses, facts.phrases))
        # “Ann, ann@a.example” is one: where pieces of a line are items, they tell the same.
        return max([by_line, *filter(_are_alike, finer)], key=len)

    def _one_of_each(self, part: Schema, passages: list[str]) -> list[Any]:
        found = (self._deeper().found(part, "", Facts(passage)) for passage in passages)
        return [value for value in found if value is not MISSING]

    def _is_object(self, schema: Schema) -> bool:
        options = options_of(schema) or [schema]
        return all(type_of(self.resolved(option)) == "object" for option in options)

    def _position(self, part: Schema, item: Item) -> dict[str, Any]:
        words: dict[str, str | Decimal] = {
            "description": item.description,
            "quantity": item.quantity,
            "unit_price": item.unit_price,
            "amount": item.amount,
        }
        facts = Facts(item.description)
        found = {}
        for name, schema in (part.get("properties") or {}).items():
            said = words.get(position_word(name) or "")
            found[name] = MISSING if said is None else self._as_said(schema, said)
        return self._completed(part, found, facts)

    def _as_said(self, schema: Schema, said: str | Decimal) -> Any:
        schema = self.resolved(schema)
        if options := options_of(schema):
            if isinstance(said, Decimal) and self._is_decimal(options):
                return str(said)
            tried = (self._as_said(option, said) for option in options)
            return next((value for value in tried if value is not MISSING), MISSING)
        if isinstance(said, Decimal) and type_of(schema) in ("integer", "number"):
            return as_number(schema, said, whole=type_of(schema) == "integer")
        if type_of(schema) == "string":
            text = str(said)[: schema.get("maxLength")]
            return text if fits(schema, text) else MISSING
        return MISSING

    # The least that is allowed

    def least(self, schema: Schema, name: str, facts: Facts) -> Any:
        schema = self.resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return neutral(schema["enum"])
        if options := options_of(schema):
            return self._least_among(options, name, facts)
        if "default" in schema:
            return schema["default"]
        return self._least_by_type(schema, name, facts)

    def _least_among(self, options: list[Schema], name: str, facts: Facts) -> Any:
        if any(is_kind(option, "null") for option in options):
            return None
        if self._is_decimal(options):
            numbers = [option for option in options if not is_kind(option, "string")]
            return str(self._least_among(numbers, name, facts))
        # The way out of a recursive model is the option that does not come back to it.
        return self.least(min(options, key=self._is_reference), name, facts)

    def _is_reference(self, option: Schema) -> bool:
        return self.depth > 2 and "$ref" in option

    def _least_by_type(self, schema: Schema, name: str, facts: Facts) -> Any:
        match type_of(schema):
            case "object":
                return {} if self.depth > 2 * DEEPEST else self._completed(schema, {}, facts)
            case "array":
                return self._least_array(schema, name, facts)
            case "string":
                return least_string(schema, facts)
            case "integer" | "number" as kind:
                return least_number(schema, facts, whole=kind == "integer")
            case "boolean":
                return False
            case "null":
                return None
        return facts.sentences[0] if facts.sentences else ""

    def _least_array(self, schema: Schema, name: str, facts: Facts) -> list[Any]:
        inner = self._deeper()
        first = [inner.value(part, name, facts) for part in schema.get("prefixItems") or ()]
        missing = int(schema.get("minItems") or 0) - len(first)
        part = schema.get("items")
        part = part if isinstance(part, dict) else {}
        if name in WRAPPED_LISTS and self.depth == 1 and not first:
            made_up = self._made_up_of(part, facts)
            if len(made_up) >= missing:
                return made_up[: schema.get("maxItems")]
        rest = [inner.least(part, name, facts) for _ in range(missing)]
        if schema.get("uniqueItems"):
            rest = [varied(self.resolved(part), value, n) for n, value in enumerate(rest)]
        return first + rest

    def _made_up_of(self, part: Schema, facts: Facts) -> list[Any]:
        """Where a list is all that is asked for, something for it: of each passage the least."""
        passages = (facts.points, facts.clauses, facts.phrases)
        several = next((some for some in passages if len(some) > 1), facts.points)
        made_up = (self._deeper().value(part, "", Facts(passage)) for passage in several)
        return unlike(islice(made_up, MOST_MADE_UP))

    def resolved(self, schema: Schema) -> Schema:
        return resolved(schema, self.definitions)

    def _deeper(self) -> _Filler:
        return _Filler(self.definitions, self.depth + 1)


def _are_alike(objects: list[dict[str, Any]]) -> bool:
    return len({tuple(one) for one in objects}) == 1
