"""Schemas filled from texts: from any text, and with what the text says where a name is known."""

import json
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model

from project.extraction.examples import examples
from project.extraction.schemas import (
    SCHEMAS,
    Category,
    Contact,
    Invoice,
    InvoiceLine,
    Priority,
    Ticket,
)
from project.standin.filling import fill, varied
from project.standin.reading import Text, number

EXAMPLES = list(examples().values())


def filled(schema: type[Any], text: str) -> Any:
    adapter = TypeAdapter(schema)
    answer = json.dumps(fill(adapter.json_schema(), text))
    return adapter.validate_json(answer, strict=True)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.slug)
def test_every_example_fits_every_schema(example, schema):
    assert isinstance(filled(schema, example.text), schema)


TEXT = """\
Hello, my name is Jane Roe and I work at Acme Ltd.
Please send invoice INV-2025-7 of 3 March 2025 to jane@roe.example, phone +44 20 7946 0958.
My order #A-1234 never arrived, this is urgent. I want a refund.
Due date: 02.04.2025
3 x Widget @ 4.50
2 x Gear, large @ € 53.50
Total: 1,120.50
"""


def test_a_contact():
    assert filled(Contact, TEXT) == Contact(
        name="Jane Roe", company="Acme Ltd.", email="jane@roe.example", phone="+44 20 7946 0958"
    )


def test_an_invoice():
    assert filled(Invoice, TEXT) == Invoice(
        number="INV-2025-7",
        seller="Acme Ltd.",
        issued_on=date(2025, 3, 3),
        due_on=date(2025, 4, 2),
        currency="EUR",
        lines=[
            InvoiceLine(description="Widget", quantity=Decimal(3), unit_price=Decimal("4.5")),
            InvoiceLine(description="Gear, large", quantity=Decimal(2), unit_price=Decimal("53.5")),
        ],
        total=Decimal("1120.5"),
    )


def test_a_ticket():
    assert filled(Ticket, TEXT) == Ticket(
        summary="Hello, my name is Jane Roe and I work at Acme Ltd.",
        category=Category.BILLING,
        priority=Priority.URGENT,
        customer_name="Jane Roe",
        email="jane@roe.example",
        order_number="A-1234",
        wants_refund=True,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.234,56", 1234.56),
        ("1,234.56", 1234.56),
        ("1,14,600.00", 114600),
        ("١٢٣", 123),
        ("2,400", 2400),
        ("0.85", 0.85),
        ("-7", -7),
    ],
)
def test_numbers_are_read_as_they_are_written(text, value):
    assert number(text) == value
    assert Text(f"For {text} €.").numbers == [value]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    name: str
    children: list["Node"] = Field(min_length=0)
    parent: "Node | None" = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]


class Odd(BaseModel):
    empty_pattern: Annotated[str, Field(pattern=r"^$")]
    three: Annotated[list[Colour], Field(min_length=3)]
    pair: tuple[int, str]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    half: Annotated[float, Field(gt=0, lt=1)]
    even: Annotated[int, Field(multiple_of=2, ge=3)]
    minus: Annotated[int, Field(lt=-5)]
    exact: Annotated[Decimal, Field(ge=Decimal("2.5"))]
    by_name: dict[str, list[int]]
    anything: Any
    tree: Node
    # Well-known names with types that are not what one expects there.
    email: int
    total: bool
    name: list[str]
    lines: dict[str, str]
    phone: float | None


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "12", "{}", "a" * 300, *(e.text for e in EXAMPLES)]
)
def test_an_odd_schema(text):
    assert isinstance(filled(Odd, text), Odd)


@pytest.mark.parametrize(
    "schema", [int, str, bool, list[int], list[Contact], Literal["a", "b"], Colour, int | None]
)
def test_schemas_that_are_no_objects(schema):
    filled(schema, "There are 3 blue things.")


def test_what_a_text_says_reaches_fields_nobody_thought_of():
    class Bicycle(BaseModel):
        frame_size: int
        colour: Colour
        electric: bool
        serial_no: str

    bicycle = filled(Bicycle, "Frame size: 56\nSerial no: WTU-1\nAn electric one, blue please.")
    assert bicycle == Bicycle(frame_size=56, colour=Colour.BLUE, electric=True, serial_no="WTU-1")


def test_several_people_are_several_answers():
    class Person(BaseModel):
        email: str

    people = filled(list[Person], "- Ann, ann@a.example\n- and Bob: bob@b.example\n- nobody")
    assert [person.email for person in people] == ["ann@a.example", "bob@b.example"]


class User(BaseModel):
    name: str
    age: int


def listed(kind: Any, text: str, name: str = "tasks", **constraints: Any) -> Any:
    fields: Any = {name: (list[kind], Field(**constraints))}
    model = create_model("Listed", **fields)
    answer = json.dumps(fill(model.model_json_schema(), text))
    return getattr(model.model_validate_json(answer, strict=True), name)


@pytest.mark.parametrize(
    "text",
    [
        "Jason is 25, Sarah is 30 and Bob is 7",
        "Extract: Jason is 25, Sarah is 30, Bob is 7.",
        "Jason is 25. Sarah is 30. Bob is 7.",
        "- Jason is 25\n- Sarah is 30\n- Bob is 7",
        "1. Jason is 25\n2. Sarah is 30\n3. Bob is 7",
        "Users:\nJason is 25\nSarah is 30\nBob is 7",
        "Jason is 25; Sarah is 30; Bob is 7",
    ],
)
def test_however_the_text_lists(text):
    expected = [User(name="Jason", age=25), User(name="Sarah", age=30), User(name="Bob", age=7)]
    assert listed(User, text) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("one, two, three, four and five", ["one", "two", "three"]),
        ("Hello there", ["Hello there"]),
        ("the same, the same, the same", ["the same"]),
        ("", []),
    ],
)
def test_where_nothing_is_found_the_text_is_taken_apart(text, names):
    assert [user.name for user in listed(User, text)] == names


def test_one_person_stays_one():
    [contact] = listed(Contact, "My name is Jane Roe, jane@roe.example, Tel. +44 20 7946 0958")
    assert contact.name == "Jane Roe"
    assert contact.email == "jane@roe.example"


def test_one_of_several_models():
    items = listed(User | Contact, "Ann Lee, ann@a.example; Bob Day, bob@b.example")
    assert len(items) == 2


def test_plain_types():
    assert listed(int, "3, 5 and 8", "content") == [3, 5, 8]
    assert listed(str, "red, blue and green", "content") == ["red", "blue", "green"]
    assert listed(Literal["billing", "delivery"], "It was delivered", "content") == ["delivery"]


def test_no_other_list_is_made_up():
    assert listed(User, "one, two, three", "lines") == []


def test_the_bounds_of_a_list_hold():
    assert len(listed(User, "a, b, c", max_length=2)) == 2
    assert len(listed(User, "a, b", min_length=5)) == 5


def test_a_long_text_is_answered_soon():
    assert TypeAdapter(list[Ticket]).validate_python(listed(Ticket, "word, word; word. " * 5_000))


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    date,
    datetime,
    timedelta,
    Decimal,
    UUID,
    Colour,
    Contact,
    Invoice,
    Literal["x", 1],
    dict[str, int],
    tuple[str, int],
    Annotated[str, Field(min_length=5, max_length=7)],
    Annotated[int, Field(ge=-3, lt=90)],
    Annotated[float, Field(gt=1, le=2)],
]
types = st.recursive(
    st.sampled_from(TYPES),
    lambda inner: st.one_of(
        inner.map(lambda t: t | None if not isinstance(t, str) else t),
        inner.map(lambda t: list[t]),  # type: ignore[valid-type]
        inner.map(lambda t: Annotated[list[t], Field(min_length=1, max_length=3)]),  # type: ignore[valid-type]
    ),
    max_leaves=3,
)
names = st.sampled_from(
    ["name", "email", "total", "due_on", "lines", "currency", "language", "x", "order_number"]
)
texts = st.one_of(st.text(max_size=200), st.sampled_from([example.text for example in EXAMPLES]))


@settings(deadline=None, max_examples=150)
@given(fields=st.dictionaries(names, types, min_size=1, max_size=4), text=texts)
def test_any_model_from_any_text(fields, text):
    model = create_model("Generated", **{name: (kind, ...) for name, kind in fields.items()})
    assert filled(model, text) == filled(model, text)


def test_a_variation_keeps_to_the_schema():
    class Narrow(BaseModel):
        kind: Literal["a", "b"]
        short: str = Field(max_length=3)
        code: str = Field(pattern="^x$")
        on: date
        yes: bool
        share: float = Field(le=1)
        size: int | None
        note: str | None = None

    value = {
        "kind": "a",
        "short": "abc",
        "code": "x",
        "on": "2000-01-01",
        "yes": True,
        "share": 0.5,
        "size": 7,
    }
    schema = Narrow.model_json_schema()
    assert varied(schema, value, 3) == value
    value["note"] = "n"
    assert varied(schema, value, 3) == value | {"note": "n (3)"}


@pytest.mark.parametrize(
    "piece", ["word ", "a", "1,2.", "<p>", "<", "x@", "a:b\n", "A.A ", "é&", "3 x a @ 4\n"]
)
def test_long_texts_are_read_soon(piece):
    text = piece * (200_000 // len(piece))
    started = time.perf_counter()
    for schema in SCHEMAS.values():
        filled(schema, text)
    assert time.perf_counter() - started < 15
