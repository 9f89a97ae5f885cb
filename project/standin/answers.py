"""What the stand-in answers, whichever protocol it goes back by.

What a test set; to the examples of the site, what a file says; to all else, a filled schema.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from project.extraction.examples import examples
from project.standin.filling import Schema, fill, varied
from project.standin.questions import Body, Question, Tool

EXAMPLES = Path(__file__).parent / "examples.json"

REFUSAL = "I'm sorry, but I cannot help with that."

# An estimate: about four characters to a token, which is how English comes out.
CHARACTERS_PER_TOKEN = 4


@dataclass
class Behaviour:
    """How the stand-in answers. Each part may be changed while it runs.

    Attributes:
        answer_with: this, instead of what is found in the text. A dictionary is the JSON, or the
            arguments of the one call. Of a list, each is the arguments of a call of its own, or
            an item where the schema wants a list. A string goes out as it is, valid JSON or not.
        truncate: break off in the middle, as at the limit of tokens.
        refuse: decline to answer.
        filter: answer, and say that the content was filtered. JSON stays whole.
        vary: put a number into what is found, another one at each call, as a model never
            says the same twice. Where the schema leaves no string free for one, nothing changes.
    """

    answer_with: dict[str, Any] | list[dict[str, Any]] | str | None = None
    truncate: bool = False
    refuse: bool = False
    filter: bool = False
    vary: bool = False

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def next_number(self) -> int | None:
        """What tells this answer from the others; ``None`` where they do not vary."""
        return next(self._numbers) if self.vary else None


class Ending(Enum):
    """Why the answer ends where it does."""

    COMPLETE = "complete"
    LENGTH = "length"
    REFUSED = "refused"
    FILTERED = "filtered"


@dataclass(frozen=True)
class ToolCall:
    """One function to call, with its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """A text, or functions to call."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    ending: Ending = Ending.COMPLETE

    def __len__(self) -> int:
        return len(self.text) + sum(len(call.arguments) for call in self.calls)


def answer(question: Question, behaviour: Behaviour) -> Answer:
    """What a model that behaves like ``behaviour`` says to ``question``."""
    if behaviour.refuse:
        return Answer(REFUSAL, ending=Ending.REFUSED)
    said = _said(question, behaviour)
    if behaviour.filter:
        return replace(said, ending=Ending.FILTERED)
    longest = (question.limit or len(said)) * CHARACTERS_PER_TOKEN
    return _at_most(said, len(said) // 2 if behaviour.truncate else longest)


def tokens(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def tokens_of(body: Body) -> int:
    """About how many tokens a request is, streamed or not."""
    return tokens(as_json({k: v for k, v in body.items() if not k.startswith("stream")}))


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _said(question: Question, behaviour: Behaviour) -> Answer:
    given, number = behaviour.answer_with, behaviour.next_number()
    if question.tools:
        calls = _found(question, number) if given is None else _given(question.tools, given)
        return Answer(calls=tuple(calls))
    text = _text(question, number) if given is None else _as_text(question.schema or {}, given)
    return Answer(f"```json\n{text}\n```" if question.fenced else text)


# From the file, or by rules


def _found(question: Question, number: int | None) -> Iterator[ToolCall]:
    for tool in question.tools:
        filled = _filled(tool.name, tool.schema, question.text, number)
        yield ToolCall(tool.name, as_json(filled))


def _text(question: Question, number: int | None) -> str:
    if question.schema is not None:
        name = str(question.schema.get("title"))
        return as_json(_filled(name, question.schema, question.text, number))
    opening = " ".join(question.text.split())[:120]
    prose = f"This is a stand-in and no model. The text begins: “{opening}”"
    return prose if number is None else f"{prose} ({number})"


def _filled(name: str, schema: Schema, text: str, number: int | None) -> Any:
    found = _answers_to_examples().get((name, text)) or fill(schema, text)
    return found if number is None else varied(schema, found, number)


@cache
def _answers_to_examples() -> dict[tuple[str, str], Any]:
    """By the name of the schema that fits an example, and its text."""
    answers = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    texts = examples().items()
    return {(one.model.title(), one.text): answers[slug] for slug, one in texts}


# As set by a test


def _given(
    tools: tuple[Tool, ...], given: dict[str, Any] | list[dict[str, Any]] | str
) -> Iterator[ToolCall]:
    if isinstance(given, str):
        yield ToolCall(tools[0].name, given)
        return
    wanted = _listed(tools[0].schema, given) if len(tools) == 1 else given
    for number, arguments in enumerate(wanted if isinstance(wanted, list) else [wanted]):
        yield ToolCall(_tool_for(arguments, tools, number).name, as_json(arguments))


def _tool_for(arguments: dict[str, Any], tools: tuple[Tool, ...], number: int) -> Tool:
    taking = (tool for tool in tools if arguments.keys() <= _properties(tool.schema).keys())
    return next(taking, tools[number % len(tools)])


def _as_text(schema: Schema, given: dict[str, Any] | list[dict[str, Any]] | str) -> str:
    return given if isinstance(given, str) else as_json(_listed(schema, given))


def _listed(
    schema: Schema, given: dict[str, Any] | list[dict[str, Any]]
) -> dict[str, Any] | list[dict[str, Any]]:
    """A list under the name of the one field that takes it, as instructor asks for lists."""
    properties = _properties(schema)
    [name, *others] = properties or [""]
    if isinstance(given, list) and not others and properties.get(name, {}).get("type") == "array":
        return {name: given}
    return given


def _properties(schema: Schema) -> dict[str, Schema]:
    return schema.get("properties") or {}


# Broken off


def _at_most(answer: Answer, longest: int) -> Answer:
    if len(answer) <= longest:
        return answer
    return Answer(answer.text[:longest], tuple(_begun(answer.calls, longest)), Ending.LENGTH)


def _begun(calls: tuple[ToolCall, ...], longest: int) -> Iterator[ToolCall]:
    for call in calls:
        if longest <= 0:
            return
        yield replace(call, arguments=call.arguments[:longest])
        longest -= len(call.arguments)
