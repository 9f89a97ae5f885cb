"""Numbers of a schema, within its bounds."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from project.standin.facts import Facts
from project.standin.schemas import MISSING, Schema, words_of


def found_number(schema: Schema, name: str, facts: Facts, *, whole: bool) -> Any:
    words = set(words_of(name))
    if words & {"total", "amount", "sum", "due", "price", "cost"}:
        said = facts.total
    else:
        said = _labelled_number(name, facts)
    return MISSING if said is None else as_number(schema, said, whole=whole)


def _labelled_number(name: str, facts: Facts) -> Decimal | None:
    words = words_of(name)
    if not words:
        return None
    before = re.search(
        rf"\b{'[ _-]'.join(map(re.escape, words))}\b\D{{0,12}}(\d{{1,9}}(?:\.\d{{1,4}})?)",
        facts.folded,
    )
    return Decimal(before[1]) if before else None


def as_number(schema: Schema, number: Decimal, *, whole: bool) -> Any:
    if whole and number != number.to_integral_value():
        return MISSING
    value = int(number) if whole else number
    return value if in_range(schema, value) else MISSING


def least_number(schema: Schema, facts: Facts, *, whole: bool) -> int | float | Decimal:
    in_text = (as_number(schema, number, whole=whole) for number in facts.numbers[:100])
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
    fitting = (number for number in candidates if in_range(schema, number))
    return next(fitting, candidates[-1])


def in_range(schema: Schema, number: int | float | Decimal) -> bool:
    value = float(number)
    step = schema.get("multipleOf")
    return (
        value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
        and (not step or not Decimal(str(number)) % Decimal(str(step)))
    )
