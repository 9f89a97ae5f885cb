"""The OpenAI protocol for chat completions.

Sources: the OpenAI API reference (Chat Completions, and its streaming events), and the requests
that instructor's modes TOOLS, PARALLEL_TOOLS, JSON, MD_JSON and JSON_SCHEMA make of it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from project.standin.answers import Answer, Ending, ToolCall, as_json, tokens, tokens_of
from project.standin.events import DONE, event, pieces
from project.standin.questions import (
    Body,
    Question,
    Tool,
    chosen,
    conversation,
    instructions,
    limit,
    read,
    schema_asked,
)

PARTS = frozenset({"text", "image_url", "input_audio", "file", "refusal"})


def question(body: Body) -> Question:
    messages = conversation(body, "messages", PARTS)
    form = body.get("response_format") or {}
    schema, fenced = schema_asked(form, instructions(messages))
    return Question(
        text=read(messages),
        tools=_tools(body),
        schema=schema,
        fenced=fenced,
        limit=limit(body, "max_completion_tokens", "max_tokens"),
    )


def complete(body: Body, answer: Answer) -> Body:
    message = _message(answer)
    finish = _finish(body, answer)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(body, message),
        "system_fingerprint": "fp_stand_in",
    }


def stream(body: Body, answer: Answer) -> Iterator[str]:
    whole = complete(body, answer)
    [choice] = whole.pop("choices")
    usage = whole.pop("usage")
    # With the usage asked for, every chunk has the field, and the one after the last has a value.
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    envelope = whole | {"object": "chat.completion.chunk"} | ({"usage": None} if with_usage else {})
    for delta in _deltas(choice["message"]):
        yield event(envelope | {"choices": [_part(delta, None)]})
    yield event(envelope | {"choices": [_part({}, choice["finish_reason"])]})
    if with_usage:
        yield event(envelope | {"choices": [], "usage": usage})
    yield DONE


def _part(delta: Body, finish: str | None) -> Body:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _deltas(message: Body) -> Iterator[Body]:
    yield {"role": "assistant", "content": message["content"] and "", "refusal": None}
    for field in ("content", "refusal"):
        for piece in pieces(message[field] or ""):
            yield {field: piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        opening = call | {"function": function | {"arguments": ""}}
        yield {"tool_calls": [{"index": index} | opening]}
        for piece in pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _tools(body: Body) -> tuple[Tool, ...]:
    functions = [tool.get("function") or {} for tool in body.get("tools") or ()]
    tools = [Tool(str(one.get("name")), one.get("parameters") or {}) for one in functions]
    choice = body.get("tool_choice", "auto")
    if choice == "none":
        return ()
    name = choice["function"]["name"] if isinstance(choice, dict) else None
    return chosen(tools, name, parallel=body.get("parallel_tool_calls", True))


def _message(answer: Answer) -> Body:
    message: Body = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if answer.ending is Ending.REFUSED:
        return message | {"refusal": answer.text}
    if answer.calls:
        return message | {"tool_calls": [_tool_call(call) for call in answer.calls]}
    return message | {"content": answer.text}


def _tool_call(call: ToolCall) -> Body:
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _finish(body: Body, answer: Answer) -> str:
    match answer.ending:
        case Ending.LENGTH:
            return "length"
        case Ending.FILTERED:
            return "content_filter"
    # A call that the request forced by name ends with “stop”.
    forced = isinstance(body.get("tool_choice"), dict)
    return "tool_calls" if answer.calls and not forced else "stop"


def _usage(body: Body, message: Body) -> Body:
    asked, said = tokens_of(body), tokens(as_json(message))
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
    }
