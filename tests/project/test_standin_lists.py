"""Lists of models, as instructor asks for them: two or three items where the text allows it."""

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, create_model

from project.extraction.schemas import Contact, Ticket
from project.standin.rules import fill


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
    assert listed(Literal["billing", "delivery"], "My parcel", "content") == ["delivery"]


def test_no_other_list_is_made_up():
    assert listed(User, "one, two, three", "lines") == []


def test_the_bounds_of_a_list_hold():
    assert len(listed(User, "a, b, c", max_length=2)) == 2
    assert len(listed(User, "a, b", min_length=5)) == 5


def test_a_long_text_is_answered_soon():
    assert TypeAdapter(list[Ticket]).validate_python(listed(Ticket, "word, word; word. " * 5_000))
