"""The Python call of an entry to take away holds data of the row as data, never as code."""

from __future__ import annotations

import ast
import json
import time

import pytest

from llmcache.admin.entries.export import python_call
from llmcache.codec.envelope import REQUEST, seal
from llmcache.models import CacheEntry

HOSTILE = "x'); import os; os.system(\"id\"); ('\n\\ \u2028 \u00e9"
KEY = "ab" * 32


def entry(**columns: str) -> CacheEntry:
    request = {
        "messages": [{"role": "user", "content": HOSTILE}],
        "parameters": {"temperature": 0, HOSTILE: HOSTILE, "class": 1},
    }
    sealed = seal(REQUEST, KEY, json.dumps(request).encode(), created=time.time(), expires=None)
    known = {"provider": "openai", "model": "m", "mode": "tools", "response_model": "shop.Ticket"}
    return CacheEntry(key=KEY, request=sealed, **(known | columns))


def calls(source: str) -> set[str]:
    """What the program calls."""
    nodes = ast.walk(ast.parse(source))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


@pytest.mark.parametrize("column", ["provider", "model", "mode", "namespace"])
def test_a_column_is_a_text(column: str) -> None:
    source = python_call(entry(**{column: HOSTILE}))
    assert source is not None
    assert calls(source) == {"llmcache.from_provider", "instructor.Mode", "client.create"}
    constants = [
        node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
    ]
    assert any(isinstance(value, str) and HOSTILE in value for value in constants)


@pytest.mark.parametrize(
    "written", [HOSTILE, "os.system('id')", "shop.Ticket\nimport os", "(", "a.<locals>.B"]
)
def test_what_is_no_name_is_not_written_as_one(written: str) -> None:
    assert python_call(entry(response_model=written)) is None
    assert python_call(entry(provider="python", model=written)) is None


@pytest.mark.parametrize(
    "written", ["shop.Ticket", "list[int]", "Literal['a', -1]", "int | None", ""]
)
def test_the_name_of_a_type_is_written_as_it_is(written: str) -> None:
    source = python_call(entry(response_model=written))
    assert source is not None
    assert f"response_model={written or None}," in source
