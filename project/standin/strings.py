"""Strings of a schema, by the name of the field and by its format."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from project.standin.facts import BULLET, Facts
from project.standin.patterns import specimen
from project.standin.schemas import MISSING, Schema, words_of

T = TypeVar("T")

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


def found_string(schema: Schema, name: str, facts: Facts) -> Any:
    if schema.get("format") in FORMATS:
        extract, _ = FORMATS[schema["format"]]
        return extract(facts, name) or MISSING
    candidates = (_by_rule(name, facts), _by_label(name, facts))
    longest = schema.get("maxLength")
    cut = (value[:longest] for value in candidates if value)
    return next((value for value in cut if fits(schema, value)), MISSING)


def _by_rule(name: str, facts: Facts) -> str | None:
    words = set(words_of(name))
    rule = next((extract for known, extract in STRING_RULES if known & words), None)
    return rule(facts) if rule else None


def _by_label(name: str, facts: Facts) -> str | None:
    return facts.labels.get(" ".join(words_of(name))) if name else None


def several_strings(part: Schema, name: str, facts: Facts) -> list[str]:
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
    return [BULLET.sub("", line) for line in facts.lines if BULLET.match(line)]


def least_string(schema: Schema, facts: Facts) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]][1]
    longest = min(int(schema.get("maxLength", 200)), 200)
    pieces = (
        piece[:longest].strip() for piece in [*facts.sentences[:1], *facts.text[:2000].split()]
    )
    piece = next((piece for piece in pieces if fits(schema, piece)), None)
    return _made_up(schema) if piece is None else piece


def _made_up(schema: Schema) -> str:
    if pattern := schema.get("pattern"):
        return specimen(pattern) or ""
    return "-" * int(schema.get("minLength") or 0)


def fits(schema: Schema, text: str) -> bool:
    if not int(schema.get("minLength") or 0) <= len(text) <= schema.get("maxLength", math.inf):
        return False
    try:
        return re.search(schema.get("pattern", ""), text) is not None
    except re.error:
        return True  # a pattern in another dialect: nobody here can tell
