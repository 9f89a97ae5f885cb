"""OpenAI's chat completions, completions, responses and embeddings; many others speak these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmcache.providers.dialects.base import DONE, Batch, Body, Dialect, Event, Kind, OutOfOrder
from llmcache.providers.dialects.shapes import AnyOf, ByType, Filled
from llmcache.providers.dialects.vectors import (
    check_vector,
    elements,
    listed,
    members,
    with_members,
)

# Texts that come in pieces.
TEXTS: Final = frozenset({"content", "refusal", "reasoning", "reasoning_content", "arguments"})
CREATED: Final = "response.created"
COMPLETED: Final = "response.completed"
ITEM_DONE: Final = "response.output_item.done"
# How what came for a text begins, wherever it stood.
FIRST: Final = '{"index":0'


def assembled_chat(events: list[Event]) -> dict[str, Any]:
    """A chat completion, or a completion, of its chunks."""
    if not events or events[-1].data != DONE:
        raise OutOfOrder("the stream has no end")
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        chunk = event.data
        if not isinstance(chunk, Mapping):
            raise OutOfOrder("a chunk is no object")
        whole |= {name: value for name, value in chunk.items() if value is not None}
        for choice in chunk.get("choices") or ():
            _add_choice(choices, choice)
    kind = str(whole.get("object", "")).removesuffix(".chunk")
    return {**whole, "object": kind, "choices": [choices[at] for at in sorted(choices)]}


def _add_choice(choices: dict[int, dict[str, Any]], choice: Mapping[str, Any]) -> None:
    whole = choices.setdefault(choice.get("index", 0), {"index": choice.get("index", 0)})
    delta = choice.get("delta") or {}
    said = choice.get("text") or any(value for name, value in delta.items() if name != "role")
    if whole.get("finish_reason") and said:
        raise OutOfOrder("a choice goes on after its end")
    if "text" in choice:
        whole["text"] = whole.get("text", "") + (choice["text"] or "")
    if "delta" in choice:
        _add(whole.setdefault("message", {}), delta)
    if choice.get("finish_reason"):
        whole["finish_reason"] = choice["finish_reason"]


def _add(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """The fields of a message, or of a tool's call, of which texts and lists come in pieces."""
    for name, value in delta.items():
        if isinstance(value, str) and name in TEXTS:
            whole[name] = (whole.get(name) or "") + value
        elif isinstance(value, Mapping):
            _add(whole.setdefault(name, {}), value)
        elif isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
            pieces = whole.setdefault(name, [])
            for piece in value:
                at = piece.get("index", 0)
                if at == len(pieces):
                    pieces.append({})
                elif not 0 <= at < len(pieces):
                    raise OutOfOrder(f"a piece of {name} is of none that has begun")
                _add(pieces[at], {key: each for key, each in piece.items() if key != "index"})
        elif value is not None:
            whole[name] = value


def assembled_response(events: list[Event]) -> dict[str, Any]:
    """The response that the last event has."""
    told = [event.data for event in events if event.data != DONE]
    if not told or not all(isinstance(data, Mapping) for data in told):
        raise OutOfOrder("there are no events of a response")
    numbers = [data["sequence_number"] for data in told if "sequence_number" in data]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(told))):
        raise OutOfOrder("the events are not in the order of their numbers")
    kinds = [data.get("type") for data in told]
    if kinds[0] != CREATED or kinds.count(COMPLETED) != 1 or "error" in kinds:
        raise OutOfOrder("the events are none of one response")
    if told[-1].get("type") != COMPLETED or not isinstance(told[-1].get("response"), Mapping):
        raise OutOfOrder("the stream has no end")
    response = dict(told[-1]["response"])
    for data in told:
        if (
            data.get("type") == ITEM_DONE
            and data["item"] != response["output"][data["output_index"]]
        ):
            raise OutOfOrder("an item is another one in the end")
    return response


def texts_in(body: Body) -> list[Any] | None:
    """The texts of a request for embeddings; or its lists of tokens, of which one stands alone."""
    given = body.get("input")
    # (by Jina, one text is read in the light of the others)
    if not given or body.get("late_chunking"):
        return None
    if isinstance(given, str) or (isinstance(given, list) and _are_tokens(given)):
        return [given]
    if isinstance(given, list) and all(given) and _are_texts(given):
        return given
    return None


def _are_texts(given: list[Any]) -> bool:
    is_text = isinstance(given[0], str)
    return all(isinstance(each, str) if is_text else _are_tokens(each) for each in given)


def _are_tokens(given: Any) -> bool:
    return isinstance(given, list) and all(type(each) is int for each in given)


def vectors_in(told: Mapping[str, Any], text: str) -> list[str]:
    """What came for each text: the object of its vector, with the number 0."""
    found: dict[int, str] = {}
    for value, written in zip(told["data"], elements(members(text)["data"]), strict=True):
        check_vector(value["embedding"])
        others = {name: each for name, each in members(written).items() if name != "index"}
        if type(value["index"]) is not int or value["index"] in found:
            raise OutOfOrder("two vectors have one number")
        found[value["index"]] = with_members({"index": "0", **others})
    return [found[number] for number in range(len(found))]


def numbered(pieces: list[str]) -> str:
    ends = (piece.removeprefix(FIRST) for piece in pieces)
    return listed([f'{{"index":{number}{end}' for number, end in enumerate(ends)])


TEXT: Final = {"choices": Filled([{"text": str}])}
CALLED: Final = {"name": str, "arguments": str}
# (a custom tool has an input of its own)
CALLS: Final = Filled([AnyOf(function=CALLED, custom={"name": str, "input": str})])
MESSAGE: Final = AnyOf(
    content=(str, Filled([dict])),
    tool_calls=CALLS,
    function_call=CALLED,
    audio=dict,
    refusal=str,
    reasoning=str,
    reasoning_content=str,
)
ITEM: Final = ByType(
    message={"content": [ByType(output_text={"text": str})]},
    function_call=CALLED,
    custom_tool_call={"name": str, "input": str},
)

CHAT: Final = Dialect(
    "openai",
    re.compile(r"/chat/completions$"),
    ("messages",),
    shape={"choices": Filled([{"message": MESSAGE}])},
    schemas=frozenset({"tools", "functions", "response_format", "guided_json", "extra_body"}),
    assembled=assembled_chat,
    last=b"[DONE]",
)
COMPLETIONS: Final = Dialect(
    "openai",
    re.compile(r"(?<!/chat)/completions$"),
    ("prompt", "suffix"),
    shape=TEXT,
    assembled=assembled_chat,
    last=b"[DONE]",
)
RESPONSES: Final = Dialect(
    "openai",
    re.compile(r"/responses$"),
    ("instructions", "input", "prompt"),
    schemas=frozenset({"tools", "text"}),
    shape={"output": Filled([ITEM])},
    assembled=assembled_response,
    last=COMPLETED.encode(),
)
EMBEDDINGS: Final = Dialect(
    "openai",
    re.compile(r"/embeddings$"),
    ("input",),
    Kind.EMBEDDINGS,
    batch=Batch("input", "data", texts_in, vectors_in, numbered, stands_alone=True),
)
DIALECTS: Final = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)
