"""What a request asks, whichever protocol it came by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from project.standin.filling import Schema

Body = dict[str, Any]

# instructor's MD_JSON mode puts this after the text; it is no part of what there is to read.
MARKDOWN_REQUEST = "Return the correct JSON response within a ```json codeblock"

# How instructor's messages begin that ask once more, where it leaves the first answer out.
ASKING_AGAIN = (
    "Validation Error",
    "Correct your JSON ONLY RESPONSE",
    "Recall the function correctly",
)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    schema: Schema


@dataclass(frozen=True)
class Question:
    """What there is to read, and in which form the answer is wanted.

    Attributes:
        text: what to read.
        tools: the functions to call; none: the answer is text.
        schema: what a text must satisfy to be the JSON that was asked for; ``None``: prose.
        fenced: whether the JSON goes into a Markdown code block.
        limit: the most tokens that the answer may have.
    """

    text: str
    tools: tuple[Tool, ...] = ()
    schema: Schema | None = None
    fenced: bool = False
    limit: int | None = None


@dataclass(eq=False)
class Rejection(Exception):
    """The request is not one that the protocol allows."""

    message: str
    param: str | None = None
    status: int = 400
    code: str | None = None


def read(messages: Iterable[Body]) -> str:
    """The text to read: what the user said before the first answer.

    What comes later is instructor asking again with the validation errors of the first attempt,
    which is about the text, and not text to read.
    """
    first = takewhile(lambda message: not _follows_an_answer(message), messages)
    said = [flat(message.get("content")) for message in first if message.get("role") == "user"]
    return "\n\n".join(said).partition(MARKDOWN_REQUEST)[0].strip()


def conversation(body: Body, field: str, parts: frozenset[str]) -> list[Body]:
    """The messages of a request; rejected where there are none, or parts of an unknown type."""
    said = body.get(field)
    if not said or not isinstance(said, list | str):
        raise Rejection(f"Missing required parameter: '{field}'.", field)
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in parts:
                where = f"{field}[{number}].content[{index}].type"
                expected = ", ".join(sorted(parts))
                raise Rejection(f"Invalid value: {kind!r}. Expected one of: {expected}.", where)
    return messages


def _follows_an_answer(message: Body) -> bool:
    if message.get("role") == "assistant" or message.get("type") == "function_call":
        return True
    return flat(message.get("content")).startswith(ASKING_AGAIN)


def instructions(messages: Iterable[Body], beside: object = None) -> str:
    """What the model is told about its task, in the messages and ``beside`` them."""
    told = [m.get("content") for m in messages if m.get("role") in ("system", "developer")]
    return "\n\n".join(flat(part) for part in (beside, *told))


def schema_in(instructions: str) -> Schema | None:
    """The JSON schema that instructor's JSON modes write into the system message."""
    _, marker, after = instructions.rpartition("json_schema")
    start = after.find("{")
    if not marker or start < 0:
        return None
    try:
        schema, _ = json.JSONDecoder().raw_decode(after, start)
    except ValueError:
        return None
    return schema if isinstance(schema, dict) else None


def chosen(tools: Iterable[Tool], name: str | None, *, parallel: bool) -> tuple[Tool, ...]:
    """The tools to call: all that are offered, one at most, or the one asked for by name."""
    fitting = tuple(tool for tool in tools if name in (None, tool.name))
    if name and not fitting:
        raise Rejection(f"Tool choice '{name}' not found in 'tools'.", "tool_choice")
    return fitting if parallel else fitting[:1]


def schema_asked(form: Body, instructions: str) -> tuple[Schema | None, bool]:
    """The schema of the JSON that OpenAI is asked for, and whether it goes into a code block."""
    if form.get("type") == "json_schema":
        return (form.get("json_schema") or form).get("schema") or {}, False
    schema = schema_in(instructions)
    if form.get("type") == "json_object":
        return schema or {"type": "object"}, False
    return schema, schema is not None


def limit(body: Body, *names: str) -> int | None:
    """The most tokens allowed, by the first of ``names`` that says so."""
    found = next((body[name] for name in names if body.get(name)), None)
    return found if isinstance(found, int) else None


def flat(content: object) -> str:
    """The text in a message's content, which may come in parts."""
    return "\n".join(_texts(content))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part)
    elif isinstance(content, dict):
        yield from _texts(content.get("text"))
