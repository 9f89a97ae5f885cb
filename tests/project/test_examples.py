"""The examples of the site, and what the stand-in answers to them."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from pydantic import BaseModel

from project.extraction.examples import Example, examples
from project.extraction.schemas import SCHEMAS, Contact, Invoice, Priority, Ticket
from project.standin.answers import Behaviour, answer
from project.standin.questions import Question, Tool

EXAMPLES = list(examples().values())
each = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.slug)


def answered(example: Example) -> BaseModel:
    """What the stand-in answers, by a tool and as JSON."""
    model = SCHEMAS[example.model]
    schema = model.model_json_schema()
    tool = Question(example.text, tools=(Tool(model.__name__, schema),))
    [call] = answer(tool, Behaviour()).calls
    text = answer(Question(example.text, schema=schema), Behaviour()).text
    assert json.loads(call.arguments) == json.loads(text)
    return model.model_validate_json(text, strict=True)


def test_there_is_something_for_everybody():
    assert len(EXAMPLES) >= 40
    assert {example.model for example in EXAMPLES} == set(SCHEMAS)
    assert len({example.language for example in EXAMPLES}) >= 20
    assert max(len(example.text.encode()) for example in EXAMPLES) >= 20_000


@each
def test_what_is_answered_stands_in_the_text(example):
    match answered(example):
        case Contact(name=name, email=email):
            assert name.split()[-1] in example.text.replace("&quot;", '"')
            assert email in example.text
        case Ticket(language=language, order_number=order, email=email):
            assert example.language.startswith(language)
            assert (order or "") in example.text
            assert (email or "") in example.text
        case Invoice() as invoice:
            assert invoice.number in example.text
            assert invoice.seller
            assert invoice.issued_on
            assert invoice.currency
            net = sum(line.quantity * line.unit_price for line in invoice.lines)
            # One of the examples adds a tax.
            assert invoice.total in (net, net * Decimal("1.2"))


def test_an_example_that_gives_orders_is_not_obeyed():
    ticket = answered(examples()["39-ticket-injection-en"])
    assert isinstance(ticket, Ticket)
    assert (ticket.priority, ticket.wants_refund) == (Priority.NORMAL, False)


def test_amounts_keep_their_digits():
    invoice = answered(examples()["14-invoice-plain-en"])
    assert isinstance(invoice, Invoice)
    assert str(invoice.lines[0].unit_price) == "12.50"
