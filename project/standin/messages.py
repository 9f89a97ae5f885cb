"""The Anthropic protocol for messages.

Sources: the Anthropic API reference (Messages, streaming messages, handling stop reasons), and
the requests that instructor's modes TOOLS, PARALLEL_TOOLS, JSON and JSON_SCHEMA make of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from project.standin.answers import Answer, Ending, ToolCall, as_json, tokens, tokens_of
from project.standin.events import event, pieces
from project.standin.filling import Schema
from project.standin.questions import (
    Body,
    Question,
    Tool,
    chosen,
    conversation,
    instructions,
    limit,
    read,
    schema_in,
)

PARTS = frozenset({"text", "image", "document", "thinking", "tool_use", "tool_result"})


def question(body: Body) -> Question:
    messages = conversation(body, "messages", PARTS)
    return Question(
        text=read(messages),
        tools=_tools(body),
        schema=_schema(body, messages),
        limit=limit(body, "max_tokens"),
    )


def complete(body: Body, answer: Answer) -> Body:
    content = _content(answer)
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        **_stop(answer),
        "usage": _usage(body, content),
    }


def stream(body: Body, answer: Answer) -> Iterator[str]:
    return (event(data, data["type"]) for data in _events(complete(body, answer), answer))


def _events(whole: Body, answer: Answer) -> Iterator[Body]:
    stop = {name: whole[name] for name in _stop(answer)}
    begun: Body = whole | {"content": [], **dict.fromkeys(stop)}
    begun["usage"] = whole["usage"] | {"output_tokens": 1}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(whole["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        yield {"type": "ping"}
        for delta in _deltas(index, block, answer):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    said = {"output_tokens": whole["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": stop, "usage": said}
    yield {"type": "message_stop"}


def _empty(block: Body) -> Body:
    return block | {"text": ""} if block["type"] == "text" else block | {"input": {}}


def _deltas(index: int, block: Body, answer: Answer) -> Iterator[Body]:
    if block["type"] == "text":
        for piece in pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}
    else:
        # Not from the block's input: what broke off in the middle is no JSON.
        for piece in ("", *pieces(answer.calls[index].arguments)):
            yield {"type": "input_json_delta", "partial_json": piece}


def _tools(body: Body) -> tuple[Tool, ...]:
    offered = body.get("tools") or ()
    tools = [Tool(str(one.get("name")), one.get("input_schema") or {}) for one in offered]
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "none":
        return ()
    return chosen(tools, choice.get("name"), parallel=not choice.get("disable_parallel_tool_use"))


def _schema(body: Body, messages: list[Body]) -> Schema | None:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    if wanted.get("type") == "json_schema":
        return wanted.get("schema") or {}
    return schema_in(instructions(messages, body.get("system")))


def _content(answer: Answer) -> list[Body]:
    if answer.calls:
        return [_tool_use(call) for call in answer.calls]
    return [{"type": "text", "text": answer.text}]


def _tool_use(call: ToolCall) -> Body:
    return {
        "type": "tool_use",
        "id": f"toolu_{uuid.uuid4().hex[:24]}",
        "name": call.name,
        "input": _readable(call.arguments),
    }


def _readable(arguments: str) -> Any:
    """The arguments; of those that break off, the fields before that."""
    with suppress(ValueError):
        return json.loads(arguments)
    while arguments:
        with suppress(ValueError):
            return json.loads(arguments + "}")
        arguments = arguments.rpartition(",")[0]
    return {}


def _stop(answer: Answer) -> Body:
    reason = {
        Ending.COMPLETE: "tool_use" if answer.calls else "end_turn",
        Ending.LENGTH: "max_tokens",
        # Anthropic's word for a filter at work is the same.
        Ending.REFUSED: "refusal",
        Ending.FILTERED: "refusal",
    }[answer.ending]
    details = {"type": "refusal", "category": None, "explanation": None}
    return {
        "stop_reason": reason,
        "stop_sequence": None,
        "stop_details": details if reason == "refusal" else None,
    }


def _usage(body: Body, content: list[Body]) -> Body:
    return {
        "input_tokens": tokens_of(body),
        "output_tokens": tokens(as_json(content)),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
