"""The conformance table: for each shape, mode, provider and way, a hit equals the live answer.

The table in README is made from what is seen here: `python -m pytest tests/test_conformance.py`
prints the new one when it is out of date.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from instructor import Mode, Provider

import llmcache
from llmcache.codec.sameness import same
from project.standin.server import StandIn
from tests import child
from tests.shapes import Row, ask, make_client, rows

ROWS = list(rows())
README = Path(__file__).parent.parent / "README.md"

# What is not cached, or not to be had at all, and why.
EXCEPTIONS = {
    (Provider.ANTHROPIC, Mode.PARALLEL_TOOLS, "parallel tools"): "can be read only once",
    (Provider.ANTHROPIC, Mode.JSON_SCHEMA, "None"): "instructor refuses the call",
}
COMPLETIONS: dict[tuple[Provider, bool], type] = {
    (Provider.OPENAI, False): openai.types.chat.ChatCompletion,
    (Provider.OPENAI, True): openai.types.responses.Response,
    (Provider.ANTHROPIC, False): anthropic.types.Message,
}


def exception(row: Row) -> str:
    return EXCEPTIONS.get((row.provider, row.mode, row.shape), "")


@pytest.fixture
def prepared_model(model: StandIn) -> Iterator[StandIn]:
    with warnings.catch_warnings():
        # instructor: this version of the SDK has no structured outputs, so it asks for JSON.
        warnings.filterwarnings("ignore", message="Anthropic client does not support")
        yield model


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_hit_equals_the_live_answer(prepared_model: StandIn, row: Row) -> None:
    if exception(row) == "instructor refuses the call":
        with pytest.raises(Exception, match="requires a `response_model`"):
            ask(row, make_client(row, prepared_model.root))
        return
    prepared_model.behaviour.answer_with = row.arguments
    with llmcache.capture() as calls:
        live = ask(row, make_client(row, prepared_model.root))
        hit = ask(row, make_client(row, prepared_model.root))
    if exception(row):
        assert exception(row) in calls[0].reason
        assert len(prepared_model.calls) == 2
        return
    assert [call.outcome for call in calls] == ["miss", "hit"]
    assert len(prepared_model.calls) == 1
    assert hit == live
    # But for a completion itself, which lacks the number of the HTTP request on a hit.
    assert row.response_model is None or same(hit, live)
    completion = getattr(hit, "_raw_response", hit if row.response_model is None else None)
    if completion is not None:
        responses = row.mode is Mode.RESPONSES_TOOLS
        assert isinstance(completion, COMPLETIONS[row.provider, responses])


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("provider", [Provider.OPENAI, Provider.ANTHROPIC], ids=str)
def test_another_process_hits(prepared_model: StandIn, provider: Provider, settings: Any) -> None:
    mine = [row for row in ROWS if row.provider is provider and not exception(row)]
    for row in mine:
        prepared_model.behaviour.answer_with = row.arguments
        ask(row, make_client(row, prepared_model.root))
    asked = len(prepared_model.calls)
    seen = child.receive(child.start_rows(mine, settings.LLMCACHE, prepared_model.root))
    assert {str(row): outcome for row, outcome in zip(mine, seen, strict=True)} == {
        str(row): "hit" for row in mine
    }
    assert len(prepared_model.calls) == asked


def table() -> str:
    """The table as README shows it; the ways (sync, async) are one where they agree."""
    columns = sorted({(row.provider.value, row.mode.value) for row in ROWS})
    cells: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in ROWS:
        mark = {"": "hit", "instructor refuses the call": "–"}.get(exception(row), "not stored")
        cells[row.shape][row.provider.value, row.mode.value] = mark
    lines = [
        "| shape | " + " | ".join(f"{provider} `{mode}`" for provider, mode in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    lines += [
        f"| {shape} | " + " | ".join(marks.get(column, "") for column in columns) + " |"
        for shape, marks in cells.items()
    ]
    return "\n".join(lines)


def test_the_table_of_readme_is_up_to_date() -> None:
    assert table() in README.read_text(), f"README should have:\n\n{table()}"
