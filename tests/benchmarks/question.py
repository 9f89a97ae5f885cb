"""What every row answers: a small structured output, as `instructor` users ask, and a large one."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Question:
    """A call; `name` is what the page calls it."""

    name: str
    response_model: type[BaseModel]
    messages: list[dict[str, str]]

    @property
    def arguments(self) -> dict[str, Any]:
        return {"response_model": self.response_model, "messages": self.messages}

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]


class Product(BaseModel):
    name: str
    quantity: int


class Order(BaseModel):
    number: str
    products: list[Product]


class Case(BaseModel):
    subject: str
    urgent: bool
    orders: list[Order]


def _said(who: str, text: str) -> dict[str, str]:
    return {"role": who, "content": text}


SMALL: Final = Question(
    "small",
    Ticket,
    [
        _said("system", SYSTEM),
        _said("user", "Subject: The front brake of my bike is broken since Monday."),
    ],
)
# 20 kB in ten messages, and a model in a model in a model.
LARGE: Final = Question(
    "large",
    Case,
    [
        _said("system", SYSTEM),
        *(
            _said(
                "assistant" if number % 2 else "user",
                f"Subject: Order {number} of two bells and a lamp. " + SYSTEM * 5,
            )
            for number in range(9)
        ),
    ],
)
