"""The response models that a visitor can pick from."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, Field


class Contact(BaseModel):
    """A person or a company, as found in a signature, on a business card or in a letter."""

    name: str = Field(description="The full name, as written in the text.")
    role: str | None = Field(None, description="Job title or function.")
    company: str | None = Field(None, description="The organisation that the person works for.")
    email: str | None = Field(None, description="E-mail address.")
    phone: str | None = Field(None, description="Telephone number, as written in the text.")
    website: str | None = Field(None, description="Address of a website.")
    address: str | None = Field(None, description="Postal address, on one line.")


class InvoiceLine(BaseModel):
    """One position of an invoice."""

    description: str = Field(description="What is charged for.")
    quantity: Decimal = Field(description="How many.")
    unit_price: Decimal = Field(description="Price of one, in the currency of the invoice.")


class Invoice(BaseModel):
    """An invoice with its lines. Amounts are exact decimals, dates are ISO 8601."""

    number: str | None = Field(None, description="The invoice number.")
    seller: str | None = Field(None, description="Who is to be paid.")
    buyer: str | None = Field(None, description="Who is to pay.")
    issued_on: date | None = Field(None, description="The date of the invoice.")
    due_on: date | None = Field(None, description="The last day for the payment.")
    currency: str | None = Field(
        None, pattern=r"^[A-Z]{3}$", description="ISO 4217 code, for example EUR."
    )
    lines: list[InvoiceLine] = Field(description="The positions, in the order of the text.")
    total: Decimal | None = Field(None, description="The amount to be paid.")


class Category(StrEnum):
    """What a support ticket is about."""

    BILLING = "billing"
    DELIVERY = "delivery"
    TECHNICAL = "technical"
    ACCOUNT = "account"
    OTHER = "other"


class Priority(StrEnum):
    """How soon somebody should look at a support ticket."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class Ticket(BaseModel):
    """A support ticket, from whatever a customer wrote."""

    summary: str = Field(max_length=120, description="What it is about, in one line.")
    category: Category = Field(description="The team that should answer.")
    priority: Priority = Field(description="How soon somebody should answer.")
    language: str | None = Field(None, description="ISO 639-1 code of the customer's language.")
    customer_name: str | None = Field(None, description="Who wrote, when the text says so.")
    email: str | None = Field(None, description="Where to answer, when the text says so.")
    order_number: str | None = Field(None, description="The order that it is about, if any.")
    wants_refund: bool = Field(False, description="Whether the customer asks for money back.")


SCHEMAS: dict[str, type[BaseModel]] = {"contact": Contact, "invoice": Invoice, "ticket": Ticket}
