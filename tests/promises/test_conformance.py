"""The conformance table: for each shape, mode, provider and way, a hit equals the live answer.

The table in docs/reference/conformance.md is made from what is seen here. When it is out of date,
`python -m pytest tests/promises/test_conformance.py` prints the new one.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import anthropic
import openai
import pytest
from instructor import Mode, Provider
from instructor.v2.core.multimodal import PDF, Audio, Image
from instructor.v2.core.registry import mode_registry
from pydantic import ValidationError

import llmcache
from llmcache.codec.equality import same
from project.standin.server import StandIn
from tests.support import child
from tests.support.paths import ROOT
from tests.support.shapes import (
    DOCUMENT,
    MEDIA,
    PNG,
    WAV,
    Cat,
    Contact,
    Dog,
    Row,
    ask,
    encoded,
    give,
    make_client,
    rows,
)

ROWS = list(rows())
PAGE = ROOT / "docs" / "reference" / "conformance.md"

REFUSED = "instructor or the provider refuses the call"
# What is not cached, or not to be had at all, and why.
EXCEPTIONS = {
    (Provider.ANTHROPIC, Mode.JSON_SCHEMA, "None"): REFUSED,
    (Provider.OPENAI, Mode.RESPONSES_TOOLS, "Audio in the message"): REFUSED,
    **{
        (Provider.ANTHROPIC, mode, "Audio in the message"): REFUSED
        for mode in mode_registry.get_modes_for_provider(Provider.ANTHROPIC)
    },
}
REFUSALS = "requires a `response_model`|doesn't support audio|Invalid value: 'audio'"
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
    if exception(row) == REFUSED:
        with pytest.raises(Exception, match=REFUSALS):
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


# What is asked about: images, sounds and documents

ASKING = [
    Row(provider, mode, shape, is_async)
    for provider, mode in [
        (Provider.OPENAI, Mode.TOOLS),
        (Provider.OPENAI, Mode.RESPONSES_TOOLS),
        (Provider.ANTHROPIC, Mode.TOOLS),
    ]
    for shape in MEDIA
    for is_async in (False, True)
]
CONTENTS = {"Image": PNG, "Audio": WAV, "PDF": DOCUMENT}
SUFFIXES = {"Image": "png", "Audio": "wav", "PDF": "pdf"}


def from_base64(cls: Any, data: bytes, path: Path) -> Any:
    kind = {"Image": "image/png", "Audio": "audio/wav", "PDF": "application/pdf"}[cls.__name__]
    return cls.from_base64(f"data:{kind};base64,{encoded(data)}")


def from_bytes(cls: Any, data: bytes, path: Path) -> Any:
    # Only images are made of bytes.
    return cls.autodetect(data) if cls is Image else from_base64(cls, data, path)


def from_path(cls: Any, data: bytes, path: Path) -> Any:
    path = path.with_suffix(f".{SUFFIXES[cls.__name__]}")
    path.write_bytes(data)
    return cls.from_path(path)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("make", [from_base64, from_bytes, from_path])
@pytest.mark.parametrize("row", [row for row in ASKING if not exception(row)], ids=str)
def test_media_count_by_their_content(
    prepared_model: StandIn, row: Row, make: Any, tmp_path: Path
) -> None:
    cls: Any = type(MEDIA[row.shape]())
    client, data = make_client(row, prepared_model.root), CONTENTS[cls.__name__]
    prepared_model.behaviour.answer_with = row.arguments
    with llmcache.capture() as calls:
        for content in (data, data, data + b" too"):
            ask(row, client, ["Who is it?", make(cls, content, tmp_path / "file")])
    assert [call.outcome for call in calls] == ["miss", "hit", "miss"]
    for sent, content in zip(prepared_model.calls, (data, data + b" too"), strict=True):
        assert encoded(content) in str(sent.body)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("cls", [Image, Audio], ids=["Image", "Audio"])
def test_where_an_image_or_a_sound_comes_from_does_not_count(cls: Any, tmp_path: Path) -> None:
    client = make_client(ASKING[0], "http://localhost")
    keys = {
        llmcache.key_for(
            client, response_model=Contact, messages=[{"role": "user", "content": ["?", media]}]
        )
        for media in (
            make(cls, CONTENTS[cls.__name__], tmp_path / name)
            for make in (from_base64, from_bytes, from_path)
            for name in ("one", "two")
        )
    }
    assert len(keys) == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("provider", "mode", "cls", "suffix"),
    [
        (Provider.OPENAI, Mode.TOOLS, Image, "png"),
        (Provider.OPENAI, Mode.RESPONSES_TOOLS, Image, "png"),
        (Provider.ANTHROPIC, Mode.TOOLS, PDF, "pdf"),
    ],
)
def test_what_the_provider_fetches_counts_by_its_address(
    prepared_model: StandIn, provider: Provider, mode: Mode, cls: Any, suffix: str, is_async: bool
) -> None:
    row = Row(provider, mode, "model", is_async)
    client = make_client(row, prepared_model.root)
    prepared_model.behaviour.answer_with = row.arguments
    addresses = [f"https://media.example/{name}.{suffix}" for name in ("1", "1", "2")]
    with llmcache.capture() as calls:
        for address in addresses:
            ask(row, client, ["Who is it?", cls.from_url(address)])
    assert [call.outcome for call in calls] == ["miss", "hit", "miss"]
    for address, sent in zip(addresses[1:], prepared_model.calls, strict=True):
        assert address in str(sent.body)


# Anthropic's parallel tools come as a generator

GENERATED = [
    row for row in ROWS if row.provider is Provider.ANTHROPIC and row.shape == "parallel tools"
]


def admit(answer: Any, completion: Any) -> bool:
    return [type(item) for item in answer] == [Dog] and isinstance(
        completion, anthropic.types.Message
    )


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("row", GENERATED, ids=str)
def test_a_generator_is_the_callers_to_read(
    prepared_model: StandIn, row: Row, settings: Any
) -> None:
    settings.LLMCACHE = settings.LLMCACHE | {"ADMIT": f"{__name__}.admit"}
    prepared_model.behaviour.answer_with = [{"kind": "dog", "tricks": ["sit"]}]
    client = make_client(row, prepared_model.root)
    live, hit = (give(row, client) for _ in range(2))
    assert type(live) is type(hit) is GeneratorType
    assert list(live) == list(hit) == [Dog(kind="dog", tricks=["sit"])]
    assert len(prepared_model.calls) == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("row", GENERATED, ids=str)
def test_a_generator_that_does_not_validate_any_more_is_a_miss(
    prepared_model: StandIn, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(row, prepared_model.root)
    prepared_model.behaviour.answer_with = [{"kind": "cat", "lives": 10}]
    give(row, client)
    monkeypatch.setattr(Cat, "most_lives", 9)
    prepared_model.behaviour.answer_with = [{"kind": "cat", "lives": 9}]
    with llmcache.capture() as calls:
        assert list(give(row, client)) == [Cat(kind="cat", lives=9)]
    assert "does not validate any more" in calls[0].reason
    assert [call.outcome for call in calls] == ["miss"]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("row", GENERATED, ids=str)
def test_a_generator_that_raises_raises_at_the_caller_and_is_not_stored(
    prepared_model: StandIn, row: Row
) -> None:
    prepared_model.behaviour.answer_with = [{"kind": "cat", "lives": "many"}]
    with llmcache.capture() as calls:
        answer = give(row, make_client(row, prepared_model.root))
    assert calls[0].stored is False
    with pytest.raises(ValidationError):
        next(answer)


def table() -> str:
    """The table as the page shows it; the ways (sync, async) are one where they agree."""
    columns = sorted({(row.provider.value, row.mode.value) for row in ROWS})
    cells: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in ROWS:
        mark = {"": "hit", REFUSED: "–"}.get(exception(row), "not stored")
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


def test_the_table_of_the_page_is_up_to_date() -> None:
    assert table() in PAGE.read_text(), f"{PAGE.name} should have:\n\n{table()}"
