"""JSON schemas as Pydantic writes them."""

from __future__ import annotations

import re
from typing import Any

Schema = dict[str, Any]

LONGEST_CHAIN = 5  # of references that lead to references


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def options_of(schema: Schema) -> list[Schema]:
    if isinstance(kinds := schema.get("type"), list):
        return [schema | {"type": kind} for kind in kinds]
    options = schema.get("anyOf") or schema.get("oneOf") or []
    return list(options)


def merged(parts: list[Schema]) -> Schema:
    merged: Schema = {}
    for part in parts:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", ()), *part.get("required", ())]
        merged |= part
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def is_kind(schema: Schema, kind: str) -> bool:
    return schema.get("type") == kind


def type_of(schema: Schema) -> str | None:
    if "type" in schema:
        return str(schema["type"])
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else None


def words_of(name: str) -> list[str]:
    """``orderNumber``, ``order_number`` and ``order-number`` are the same two words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.casefold()) if word]


def definitions_of(schema: Schema) -> dict[str, Schema]:
    found: dict[str, Schema] = schema.get("$defs") or schema.get("definitions") or {}
    return found


def resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema with references and ``allOf`` followed."""
    for _ in range(LONGEST_CHAIN):
        if "$ref" in schema:
            target = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
            schema = target | {key: v for key, v in schema.items() if key != "$ref"}
        elif "allOf" in schema:
            parts = [resolved(part, definitions) for part in schema["allOf"]]
            schema = merged([*parts, {k: v for k, v in schema.items() if k != "allOf"}])
        else:
            break
    return schema
