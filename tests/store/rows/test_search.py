"""Prompts found by their words, where the database can."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.db import connections

from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.reasons import Reason
from llmcache.store.records import Draft
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from llmcache.store.rows.search import LONGEST_SEARCHED, can_search, prompt_of

KEY = "ab" * 32


def sealed(request: Any) -> bytes:
    return seal(REQUEST, KEY, json.dumps(request).encode(), created=0)


def write(request: Any, key: str = KEY) -> Reason | None:
    now = time.time()
    request = seal(REQUEST, key, json.dumps(request).encode(), created=now)
    payload = seal(ANSWER, key, b"", created=now)
    return durable.write(
        Draft(key, "tests", payload, now, request=request), late_answers.generation()
    )


def asking(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [
        ("refund", True),
        ("REFUND late", True),
        ('"late refund"', True),
        ('"refund late"', False),
        ("refund -late", False),
        ("invoice or refund", True),
        ("Rückzahlung", True),
        ("ref", False),
        ("user", False),
        ("'; --", False),
        ("\N{PILE OF POO}", False),
        ("", False),
    ],
)
def test_words(database: str, wanted: str, is_found: bool) -> None:
    write(asking("A late refund. Rückzahlung!"))
    if can_search(database):
        assert durable.entries().filter(words__matches=wanted).exists() is is_found


@pytest.mark.parametrize(
    "text",
    [
        "ab-cd " * 100_000,
        " ".join(f"{number:x}-{number:b}/x" for number in range(100_000)),
        " ".join(map(chr, range(0x4E00, 0x9FFF))) * 20,
        "x" * 3_000_000,
        "a\0b \ud83d",
    ],
    ids=["short", "numbers", "Chinese", "long", "odd"],
)
def test_any_prompt_is_stored(database: str, text: str) -> None:
    assert write(asking(text)) is None


def test_the_index_is_of_use(database: str) -> None:
    if not can_search(database):
        return
    with connections[database].cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'llmcache_entry_words'")
        assert "USING gin (words)" in cursor.fetchone()[0]


@pytest.mark.parametrize(
    ("request_", "prompt"),
    [
        ({"messages": [{"role": "user", "content": "A"}], "parameters": {"seed": "B"}}, "A"),
        (
            {"messages": [{"content": [{"type": "text", "text": "A"}]}], "parameters": None},
            "A",
        ),
        ({"messages": [{"content": "A"}], "parameters": {"system": "B"}}, "B\nA"),
        ({"messages": [], "parameters": {"text": "A", "number": 1}}, "A"),
        ({"messages": [{"content": "data:image/png;base64,QUJD"}]}, None),
        ({"messages": [{"content": "QUJD" * 60}]}, None),
        ({"messages": "redacted"}, "redacted"),
        ([], None),
        ("A", None),
        ({"messages": [{"content": "a" + " b" * LONGEST_SEARCHED}]}, "a" + " b" * 49_999 + " "),
    ],
)
def test_prompt(request_: Any, prompt: str | None) -> None:
    assert prompt_of(KEY, sealed(request_)) == prompt


@pytest.mark.parametrize(
    "settings_",
    [
        {"STORE_REQUESTS": "digest"},
        {"STORE_REQUESTS": "json.dumps"},
        {"ENCRYPTION_KEYS": ["a" * 43 + "="]},
    ],
    ids=str,
)
def test_no_prompt_is_at_rest_where_it_must_not_be(settings: Any, settings_: Any) -> None:
    settings.LLMCACHE = {"CACHE": None} | settings_
    assert prompt_of(KEY, sealed(asking("secret"))) is None


def test_what_cannot_be_read_has_no_words() -> None:
    assert prompt_of(KEY, b"damaged") is None
    assert prompt_of(KEY, None) is None
