"""Positions of an invoice, an order or a receipt, known by the names of their fields."""

from __future__ import annotations

from project.standin.schemas import Schema, words_of

POSITION_WORDS = {
    "description": {"description", "item", "product", "name", "title", "article", "text"},
    "quantity": {"quantity", "qty", "count", "pieces", "units"},
    "unit_price": {"price", "rate", "unit"},
    "amount": {"amount", "total", "sum", "subtotal"},
}


def position_word(name: str) -> str | None:
    words = set(words_of(name))
    return next((word for word, known in POSITION_WORDS.items() if known & words), None)


def is_position(schema: Schema) -> bool:
    words = {position_word(name) for name in schema.get("properties") or {}}
    return "description" in words and bool(words & {"quantity", "unit_price", "amount"})
