"""For generated models and values: a hit equals the live answer, or the answer was not stored.

A few hundred examples; with ``LLMCACHE_LONG=1`` ten thousand, in rounds that each end before a test
counts as hanging.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, create_model

import llmcache
from llmcache.codec.equality import same
from project.standin.server import StandIn
from tests.support.clients import CALL, make_client

ROUNDS, EXAMPLES = (100, 100) if os.environ.get("LLMCACHE_LONG") else (1, 200)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    number: int
    note: str | None = None


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
INNER = st.builds(Inner, number=st.integers(-9, 9), note=st.none() | TEXT)

# Each type, with values of it.
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**40), 2**40)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (str, TEXT),
    (SecretStr, TEXT.map(SecretStr)),
    (Decimal, st.decimals(-1000, 1000, places=2)),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.just(UTC))),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Optional[int], st.none() | st.integers(0, 9)),  # noqa: UP045
    (int | str, st.integers(0, 9) | TEXT),
    (list[int], st.lists(st.integers(0, 9), max_size=3)),
    (set[str], st.sets(TEXT, max_size=3)),
    (dict[str, int], st.dictionaries(TEXT, st.integers(0, 9), max_size=3)),
    (tuple[int, str], st.tuples(st.integers(0, 9), TEXT)),
    (Inner, INNER),
    (list[Inner], st.lists(INNER, max_size=2)),
]


@st.composite
def answers(draw: st.DrawFn) -> BaseModel:
    """An instance of a model made up on the spot, as if the model had given its fields."""
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for number, (annotation, strategy) in enumerate(
        draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    ):
        name = f"field_{number}"
        field = Field(
            alias=f"alias{number}" if draw(st.booleans()) else None,
            exclude=draw(st.booleans()) or None,
        )
        fields[name] = (annotation, field)
        values[field.alias or name] = draw(strategy)
    made: Any = create_model("Made", **fields)
    answer: BaseModel = made(**values)
    return answer


def arguments_of(answer: BaseModel) -> dict[str, Any]:
    """What the model would have answered: all fields, by their aliases, as JSON."""
    fields: dict[str, Any] = {
        field.alias or name: (field.annotation, ...)
        for name, field in type(answer).model_fields.items()
    }
    whole: Any = create_model("Whole", **fields)
    values = {
        field.alias or name: getattr(answer, name)
        for name, field in type(answer).model_fields.items()
    }
    dumped: dict[str, Any] = json.loads(whole(**values).model_dump_json())
    return dumped


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("nth", range(ROUNDS))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(answers())
def test_a_hit_equals_the_live_answer(
    model: StandIn, client: Any, nth: int, answer: BaseModel
) -> None:
    call = CALL | {"response_model": type(answer), "cache_namespace": "fidelity"}
    model.behaviour.answer_with = arguments_of(answer)
    with llmcache.capture() as calls:
        live = client.create(**call, cache_mode="reload")
        hit = client.create(**call)
    event("stored" if calls[0].stored else calls[0].reason)
    if calls[0].stored:
        assert calls[1].outcome == "hit"
        assert same(hit, live)
    else:
        assert calls[0].reason
        assert calls[1].outcome == "miss"
