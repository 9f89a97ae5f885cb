"""Fills a JSON schema from a text by rules.

Three questions for each place in the schema: what does the text say (``_found``), must there be
an answer at all, and what is the least that the schema accepts (``_least``).
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from project.standin.facts import Facts, Item
from project.standin.patterns import specimen

Schema = dict[str, Any]
T = TypeVar("T")

# A stand-in need not find everything in a long text, it has to answer soon.
MOST_ITEMS = 50
MOST_LINES = 200
DEEPEST = 5
DEEPEST_LIST = 2


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def fill(schema: Schema, text: str) -> Any:
    """A JSON value that satisfies ``schema``, with as much of ``text`` in it as rules can tell.

    The same schema and text always give the same value.

    Args:
        schema: a JSON schema as Pydantic writes it, with its definitions inside.
        text: any text; HTML is read without its markup.
    """
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    return _plain(_Filler(definitions).value(schema, "", Facts(text)))


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
            return _choice(schema["enum"], name, facts)
        if options := _options(schema):
            return self._found_among(options, name, facts)
        return self._found_by_type(schema, name, facts)

    def _found_among(self, options: list[Schema], name: str, facts: Facts) -> Any:
        if self._is_decimal(options):
            number = self._found_among([o for o in options if not _is(o, "string")], name, facts)
            return number if number is MISSING or number is None else str(number)
        for option in options:
            if not _is(option, "null"):
                found = self.found(option, name, facts)
                if found is not MISSING:
                    return found
        return MISSING

    def _is_decimal(self, options: list[Schema]) -> bool:
        # Pydantic offers a string next to the number where it means an exact decimal.
        kinds = {self.resolved(option).get("type") for option in options}
        return {"number", "string"} <= kinds <= {"number", "string", "null"}

    def _found_by_type(self, schema: Schema, name: str, facts: Facts) -> Any:
        match _type_of(schema):
            case "object":
                return self._found_object(schema, facts)
            case "array":
                return self._found_array(schema, name, facts)
            case "string":
                return _found_string(schema, name, facts)
            case "integer" | "number" as kind:
                return _found_number(schema, name, facts, whole=kind == "integer")
            case "boolean":
                return True if _speaks_of_name(name, facts) else MISSING
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
            found = _unlike(found)
        found = list(islice(found, most))
        return found if found and len(found) >= int(schema.get("minItems") or 0) else MISSING

    def _array_values(self, part: Schema, name: str, facts: Facts) -> Iterable[Any]:
        if "enum" in part:
            return [value for value in part["enum"] if _score(value, facts)]
        if _type_of(part) == "object":
            return self._array_of_objects(part, facts)
        if _type_of(part) == "string":
            strings = _several_strings(part, name, facts)
            return [value for value in strings if _fits(part, value)]
        return []

    def _array_of_objects(self, part: Schema, facts: Facts) -> Iterable[Any]:
        if _is_position(part):
            return [self._position(part, item) for item in facts.items]
        if self.depth > DEEPEST_LIST:
            return []
        chunks = (Facts(line) for line in facts.lines[:MOST_LINES])
        found = (self._deeper().found(part, "", chunk) for chunk in chunks)
        return (value for value in found if value is not MISSING)

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
            said = words.get(_position_word(name) or "")
            found[name] = MISSING if said is None else self._as_said(schema, said)
        return self._completed(part, found, facts)

    def _as_said(self, schema: Schema, said: str | Decimal) -> Any:
        schema = self.resolved(schema)
        if options := _options(schema):
            if isinstance(said, Decimal) and self._is_decimal(options):
                return str(said)
            tried = (self._as_said(option, said) for option in options)
            return next((value for value in tried if value is not MISSING), MISSING)
        if isinstance(said, Decimal) and _type_of(schema) in ("integer", "number"):
            return _as_number(schema, said, whole=_type_of(schema) == "integer")
        if _type_of(schema) == "string":
            text = str(said)[: schema.get("maxLength")]
            return text if _fits(schema, text) else MISSING
        return MISSING

    # The least that is allowed

    def least(self, schema: Schema, name: str, facts: Facts) -> Any:
        schema = self.resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return _neutral(schema["enum"])
        if options := _options(schema):
            return self._least_among(options, name, facts)
        if "default" in schema:
            return schema["default"]
        return self._least_by_type(schema, name, facts)

    def _least_among(self, options: list[Schema], name: str, facts: Facts) -> Any:
        if any(_is(option, "null") for option in options):
            return None
        if self._is_decimal(options):
            numbers = [option for option in options if not _is(option, "string")]
            return str(self._least_among(numbers, name, facts))
        # The way out of a recursive model is the option that does not come back to it.
        return self.least(min(options, key=self._is_reference), name, facts)

    def _is_reference(self, option: Schema) -> bool:
        return self.depth > 2 and "$ref" in option

    def _least_by_type(self, schema: Schema, name: str, facts: Facts) -> Any:
        match _type_of(schema):
            case "object":
                return {} if self.depth > 2 * DEEPEST else self._completed(schema, {}, facts)
            case "array":
                return self._least_array(schema, name, facts)
            case "string":
                return _least_string(schema, facts)
            case "integer" | "number" as kind:
                return _least_number(schema, facts, whole=kind == "integer")
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
        rest = [inner.least(part, name, facts) for _ in range(missing)]
        if schema.get("uniqueItems"):
            rest = [_varied(self.resolved(part), value, n) for n, value in enumerate(rest)]
        return first + rest

    def resolved(self, schema: Schema) -> Schema:
        """The schema with references and ``allOf`` followed."""
        for _ in range(DEEPEST):
            if "$ref" in schema:
                target = self.definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
                schema = target | {key: v for key, v in schema.items() if key != "$ref"}
            elif "allOf" in schema:
                parts = [self.resolved(part) for part in schema["allOf"]]
                schema = _merged([*parts, {k: v for k, v in schema.items() if k != "allOf"}])
            else:
                break
        return schema

    def _deeper(self) -> _Filler:
        return _Filler(self.definitions, self.depth + 1)


def _options(schema: Schema) -> list[Schema]:
    if isinstance(kinds := schema.get("type"), list):
        return [schema | {"type": kind} for kind in kinds]
    options = schema.get("anyOf") or schema.get("oneOf") or []
    return list(options)


def _merged(parts: list[Schema]) -> Schema:
    merged: Schema = {}
    for part in parts:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", ()), *part.get("required", ())]
        merged |= part
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _is(schema: Schema, kind: str) -> bool:
    return schema.get("type") == kind


def _type_of(schema: Schema) -> str | None:
    if "type" in schema:
        return str(schema["type"])
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else None


def words_of(name: str) -> list[str]:
    """``orderNumber``, ``order_number`` and ``order-number`` are the same two words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.casefold()) if word]


# Strings

FORMATS: dict[str, tuple[Callable[[Facts, str], str | None], str]] = {
    "date": (lambda facts, name: _date(facts, name), "2000-01-01"),
    "date-time": (lambda facts, name: _timed(_date(facts, name)), "2000-01-01T00:00:00Z"),
    "time": (lambda facts, name: None, "00:00:00"),
    "duration": (lambda facts, name: None, "PT0S"),
    "email": (lambda facts, name: _first(facts.emails), "nobody@example.com"),
    "uri": (lambda facts, name: _first(facts.urls), "https://example.com/"),
    "uuid": (lambda facts, name: _uuid_in(facts), str(uuid.UUID(int=0))),
    "ipv4": (lambda facts, name: None, "192.0.2.1"),
    "ipv6": (lambda facts, name: None, "2001:db8::1"),
    "ipv4network": (lambda facts, name: None, "192.0.2.0/24"),
    "ipv6network": (lambda facts, name: None, "2001:db8::/32"),
    "ipvanyaddress": (lambda facts, name: None, "192.0.2.1"),
    "ipvanyinterface": (lambda facts, name: None, "192.0.2.1/24"),
    "ipvanynetwork": (lambda facts, name: None, "192.0.2.0/24"),
    "json-string": (lambda facts, name: None, "null"),
    "base64url": (lambda facts, name: None, ""),
}


def _date(facts: Facts, name: str) -> str | None:
    words = set(words_of(name))
    if words & {"due", "deadline", "payable"}:
        day = facts.due_date
    elif words & {"issue", "issued", "invoice", "created", "sent"}:
        day = facts.issue_date
    else:
        day = _first(facts.dates)
    return day.isoformat() if day else None


def _timed(day: str | None) -> str | None:
    return f"{day}T00:00:00Z" if day else None


def _uuid_in(facts: Facts) -> str | None:
    match = re.search(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", facts.folded)
    return match[0] if match else None


def _first(values: list[T]) -> T | None:
    return values[0] if values else None


# The first rule counts that shares a word with the name of the field.
STRING_RULES: tuple[tuple[frozenset[str], Callable[[Facts], str | None]], ...] = (
    (frozenset({"email", "mail"}), lambda facts: _first(facts.emails)),
    (
        frozenset({"phone", "tel", "telephone", "mobile", "fax", "cell"}),
        lambda facts: _first(facts.phones),
    ),
    (
        frozenset({"url", "website", "web", "link", "homepage", "site"}),
        lambda facts: _first(facts.urls),
    ),
    (frozenset({"currency"}), lambda facts: facts.currency),
    (frozenset({"language", "lang", "locale"}), lambda facts: facts.language),
    (frozenset({"order", "purchase"}), lambda facts: facts.reference("order")),
    (frozenset({"invoice"}), lambda facts: facts.reference("invoice")),
    (
        frozenset({"number", "reference", "ref"}),
        lambda facts: facts.reference("invoice") or facts.reference("order"),
    ),
    (
        frozenset({"seller", "vendor", "supplier", "issuer", "merchant"}),
        lambda facts: facts.labelled("seller") or facts.company,
    ),
    (frozenset({"buyer", "recipient", "payer", "billed"}), lambda facts: facts.labelled("buyer")),
    (
        frozenset({"company", "organisation", "organization", "employer", "firm"}),
        lambda facts: facts.company,
    ),
    (frozenset({"role", "job", "position", "occupation"}), lambda facts: facts.labelled("role")),
    (frozenset({"address", "street", "location"}), lambda facts: facts.labelled("address")),
    (frozenset({"product", "device", "article", "item"}), lambda facts: facts.labelled("product")),
    (
        frozenset({"subject", "title", "summary", "headline", "topic"}),
        lambda facts: facts.subject,
    ),
    (
        frozenset({"name", "person", "author", "sender", "contact", "customer", "who"}),
        lambda facts: facts.person,
    ),
)


def _found_string(schema: Schema, name: str, facts: Facts) -> Any:
    if schema.get("format") in FORMATS:
        extract, _ = FORMATS[schema["format"]]
        return extract(facts, name) or MISSING
    candidates = (_by_rule(name, facts), _by_label(name, facts))
    longest = schema.get("maxLength")
    cut = (value[:longest] for value in candidates if value)
    return next((value for value in cut if _fits(schema, value)), MISSING)


def _by_rule(name: str, facts: Facts) -> str | None:
    words = set(words_of(name))
    rule = next((extract for known, extract in STRING_RULES if known & words), None)
    return rule(facts) if rule else None


def _by_label(name: str, facts: Facts) -> str | None:
    return facts.labels.get(" ".join(words_of(name))) if name else None


def _several_strings(part: Schema, name: str, facts: Facts) -> list[str]:
    words = set(words_of(name))
    if part.get("format") == "email" or words & {"emails", "mails"}:
        return facts.emails
    if part.get("format") == "uri" or words & {"urls", "links", "websites"}:
        return facts.urls
    if part.get("format") == "date" or words & {"dates"}:
        return [day.isoformat() for day in facts.dates]
    if words & {"phones", "telephones"}:
        return facts.phones
    if part.get("format") in FORMATS:
        return []
    bullets = re.compile(r"^(?:[-*•–·]|\d{1,2}[.)])\s+(?=\S)")
    return [bullets.sub("", line) for line in facts.lines if bullets.match(line)]


def _least_string(schema: Schema, facts: Facts) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]][1]
    longest = min(int(schema.get("maxLength", 200)), 200)
    pieces = (
        piece[:longest].strip() for piece in [*facts.sentences[:1], *facts.text[:2000].split()]
    )
    piece = next((piece for piece in pieces if _fits(schema, piece)), None)
    return _made_up(schema) if piece is None else piece


def _made_up(schema: Schema) -> str:
    if pattern := schema.get("pattern"):
        return specimen(pattern) or ""
    return "-" * int(schema.get("minLength") or 0)


def _fits(schema: Schema, text: str) -> bool:
    if not int(schema.get("minLength") or 0) <= len(text) <= schema.get("maxLength", math.inf):
        return False
    try:
        return re.search(schema.get("pattern", ""), text) is not None
    except re.error:
        return True  # a pattern in another dialect: nobody here can tell


# Numbers


def _found_number(schema: Schema, name: str, facts: Facts, *, whole: bool) -> Any:
    words = set(words_of(name))
    if words & {"total", "amount", "sum", "due", "price", "cost"}:
        said = facts.total
    else:
        said = _labelled_number(name, facts)
    return MISSING if said is None else _as_number(schema, said, whole=whole)


def _labelled_number(name: str, facts: Facts) -> Decimal | None:
    words = words_of(name)
    if not words:
        return None
    before = re.search(
        rf"\b{'[ _-]'.join(map(re.escape, words))}\b\D{{0,12}}(\d{{1,9}}(?:\.\d{{1,4}})?)",
        facts.folded,
    )
    return Decimal(before[1]) if before else None


def _as_number(schema: Schema, number: Decimal, *, whole: bool) -> Any:
    if whole and number != number.to_integral_value():
        return MISSING
    value = int(number) if whole else number
    return value if _in_range(schema, value) else MISSING


def _plain(value: Any) -> Any:
    """The value as JSON has it. Decimals stay exact until here: ``4.50``, not ``4.5``."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _least_number(schema: Schema, facts: Facts, *, whole: bool) -> int | float | Decimal:
    in_text = (_as_number(schema, number, whole=whole) for number in facts.numbers[:100])
    found = next((number for number in in_text if number is not MISSING), None)
    return _bound(schema, whole=whole) if found is None else found


def _bound(schema: Schema, *, whole: bool) -> int | float:
    step = schema.get("multipleOf") or (1 if whole else 0.5)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    candidates: list[int | float] = [0]
    if low is not None:
        candidates += [math.ceil(low / step) * step, (math.floor(low / step) + 1) * step, low]
    if high is not None:
        candidates += [math.floor(high / step) * step, (math.ceil(high / step) - 1) * step, high]
    if low is not None and high is not None and not whole:
        candidates.append((low + high) / 2)
    fitting = (number for number in candidates if _in_range(schema, number))
    return next(fitting, candidates[-1])


def _in_range(schema: Schema, number: int | float | Decimal) -> bool:
    value = float(number)
    step = schema.get("multipleOf")
    return (
        value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
        and (not step or not Decimal(str(number)) % Decimal(str(step)))
    )


# Choices

NEUTRAL = ("other", "unknown", "none", "general", "normal", "medium", "neutral", "default")


def _choice(values: list[Any], name: str, facts: Facts) -> Any:
    if set(words_of(name)) & {"currency"} and facts.currency in values:
        return facts.currency
    if set(words_of(name)) & {"language", "lang"} and facts.language in values:
        return facts.language
    scores = {index: _score(value, facts) for index, value in enumerate(values)}
    best = max(scores, key=lambda index: scores[index], default=0)
    return values[best] if scores.get(best) else MISSING


def _score(value: Any, facts: Facts) -> int:
    words = words_of(str(value)) if isinstance(value, str) else []
    return sum(facts.hints(word) for word in words if word not in NEUTRAL)


def _neutral(values: list[Any]) -> Any:
    return next((value for value in values if str(value).casefold() in NEUTRAL), values[0])


def _speaks_of_name(name: str, facts: Facts) -> bool:
    said = [word for word in words_of(name) if word not in ("is", "has", "wants", "needs", "can")]
    return any(facts.hints(word) for word in said)


# Positions of an invoice

POSITION_WORDS = {
    "description": {"description", "item", "product", "name", "title", "article", "text"},
    "quantity": {"quantity", "qty", "count", "pieces", "units"},
    "unit_price": {"price", "rate", "unit"},
    "amount": {"amount", "total", "sum", "subtotal"},
}


def _position_word(name: str) -> str | None:
    words = set(words_of(name))
    return next((word for word, known in POSITION_WORDS.items() if known & words), None)


def _is_position(schema: Schema) -> bool:
    words = {_position_word(name) for name in schema.get("properties") or {}}
    return "description" in words and bool(words & {"quantity", "unit_price", "amount"})


# Values that must differ


def _unlike(values: Iterable[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(repr(value), value)
    return list(seen.values())


def _varied(schema: Schema, value: Any, number: int) -> Any:
    """The ``number``-th of several least values that may not be the same."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if isinstance(value, bool) or not number:
        return value if not isinstance(value, bool) else bool(number)
    if isinstance(value, int | float):
        step = schema.get("multipleOf") or 1
        return next(
            (v for v in (value + number * step, value - number * step) if _in_range(schema, v)),
            value,
        )
    if isinstance(value, str):
        return f"{value[: schema.get('maxLength', 200) - len(str(number))]}{number}"
    return value
