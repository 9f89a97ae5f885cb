"""Answers and accounts in words."""

from decimal import Decimal

import openai
import pytest
from django.urls import reverse

from llmcache.outcomes import Call, Outcome, Tier
from project.extraction.schemas import Category, Invoice, InvoiceLine, Ticket
from project.extraction.wording import Account, Complaint, duration, fields, said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0001, "0.1 ms"), (0.0034, "3.4 ms"), (0.84, "0.84 s"), (75, "75.00 s")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, None),
        (True, "yes"),
        (False, "no"),
        (Decimal("1234.50"), "1,234.50"),
        (Category.BILLING, "billing"),
    ],
)
def test_values(value, words):
    assert said(value) == words


def test_lists_are_tables():
    line = InvoiceLine(description="Nail", quantity=Decimal(2), unit_price=Decimal("0.10"))
    lines = next(field for field in fields(Invoice(lines=[line])) if field.label == "Lines")
    assert lines.is_list
    assert lines.value == [{"Description": "Nail", "Quantity": "2", "Unit price": "0.10"}]


def test_fields_are_explained():
    ticket = Ticket.model_construct(**dict.fromkeys(Ticket.model_fields))
    assert all(field.hint for field in fields(ticket))


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("tier", [*Tier, None])
def test_every_outcome_is_accounted_for(outcome, tier):
    account = Account(Call(outcome=outcome, tier=tier, key="k", reason="because"))
    assert account.explanation
    assert account.model_was_asked is (outcome not in ("hit", "stale"))


def test_the_admin_is_asked_for_the_key():
    listed = reverse("admin:llmcache_cacheentry_changelist")
    assert Account(Call(key="abc")).admin_url == f"{listed}?q=abc"


def test_the_cause_of_a_complaint_is_found_behind_other_errors():
    error = RuntimeError()
    error.__cause__ = openai.APITimeoutError(request=None)
    assert Complaint.of(error).status == 504


def test_any_other_error_is_the_models():
    assert Complaint.of(ValueError()).status == 502
