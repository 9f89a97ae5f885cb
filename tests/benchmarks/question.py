"""The one question that every row answers: a small structured output, as `instructor` users ask."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

MODEL: Final = "openai/gpt-4.1-mini"


class Ticket(BaseModel):
    subject: str
    urgent: bool


# 400 characters: long enough that reading the prompt costs something, short enough to be common.
SYSTEM: Final = (
    "You sort what customers write to the support of a shop for bicycles. Read the message and "
    "return its subject in a few words, in the language of the customer, without names and without "
    "order numbers. Say whether it is urgent: it is when somebody was hurt, when a brake or a "
    "frame is broken, or when a delivery is late for the date that the customer names. Answer with "
    "the fields alone and add nothing."
)
QUESTION: Final[dict[str, Any]] = {
    "response_model": Ticket,
    "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Subject: The front brake of my bike is broken since Monday."},
    ],
}
