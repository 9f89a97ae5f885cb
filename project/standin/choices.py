"""One of several values, and yes or no: by what the text speaks of."""

from __future__ import annotations

from typing import Any

from project.standin.facts import Facts
from project.standin.schemas import MISSING, words_of

NEUTRAL = ("other", "unknown", "none", "general", "normal", "medium", "neutral", "default")


def choice(values: list[Any], name: str, facts: Facts) -> Any:
    if set(words_of(name)) & {"currency"} and facts.currency in values:
        return facts.currency
    if set(words_of(name)) & {"language", "lang"} and facts.language in values:
        return facts.language
    scores = {index: score(value, facts) for index, value in enumerate(values)}
    best = max(scores, key=lambda index: scores[index], default=0)
    return values[best] if scores.get(best) else MISSING


def score(value: Any, facts: Facts) -> int:
    words = words_of(str(value)) if isinstance(value, str) else []
    return sum(facts.hints(word) for word in words if word not in NEUTRAL)


def neutral(values: list[Any]) -> Any:
    return next((value for value in values if str(value).casefold() in NEUTRAL), values[0])


def speaks_of_name(name: str, facts: Facts) -> bool:
    said = [word for word in words_of(name) if word not in ("is", "has", "wants", "needs", "can")]
    return any(facts.hints(word) for word in said)
