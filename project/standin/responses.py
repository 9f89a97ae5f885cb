"""The OpenAI protocol for responses.

Sources: the OpenAI API reference (Responses, and its streaming events), and the requests that
instructor's mode RESPONSES_TOOLS makes of it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from project.standin.answers import Answer, Ending, ToolCall, as_json, tokens, tokens_of
from project.standin.events import event, pieces
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

PARTS = frozenset({"input_text", "input_image", "input_file", "output_text", "refusal"})


def question(body: Body) -> Question:
    messages = conversation(body, "input", PARTS)
    form = (body.get("text") or {}).get("format") or {}
    schema, fenced = schema_asked(form, instructions(messages, body.get("instructions")))
    return Question(
        text=read(messages),
        tools=_tools(body),
        schema=schema,
        fenced=fenced,
        limit=limit(body, "max_output_tokens"),
    )


def complete(body: Body, answer: Answer) -> Body:
    output = _output(answer)
    now = int(time.time())
    incomplete = _incomplete(answer)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": now,
        "completed_at": None if incomplete else now,
        "status": "incomplete" if incomplete else "completed",
        "error": None,
        "incomplete_details": incomplete,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "usage": _usage(body, output),
    }


def stream(body: Body, answer: Answer) -> Iterator[str]:
    for number, data in enumerate(_events(complete(body, answer))):
        yield event(data | {"sequence_number": number}, data["type"])


def _events(whole: Body) -> Iterator[Body]:
    begun = whole | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun["incomplete_details"] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        added = _empty(item) | {"status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": added}
        for data in _parts(item):
            yield data | {"item_id": item["id"], "output_index": index}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _empty(item: Body) -> Body:
    return item | {"arguments": ""} if item["type"] == "function_call" else item | {"content": []}


def _parts(item: Body) -> Iterator[Body]:
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", "delta": piece}
        yield {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
        return
    for index, part in enumerate(item["content"]):
        for data in _part(part):
            yield data | {"content_index": index}


def _part(part: Body) -> Iterator[Body]:
    kind, field = part["type"], "refusal" if part["type"] == "refusal" else "text"
    beside: Body = {"logprobs": []} if field == "text" else {}
    yield {"type": "response.content_part.added", "part": part | {field: ""}}
    for piece in pieces(part[field]):
        yield {"type": f"response.{kind}.delta", "delta": piece, **beside}
    yield {"type": f"response.{kind}.done", field: part[field], **beside}
    yield {"type": "response.content_part.done", "part": part}


def _tools(body: Body) -> tuple[Tool, ...]:
    # The other types are tools that OpenAI runs itself.
    functions = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    tools = [Tool(str(one.get("name")), one.get("parameters") or {}) for one in functions]
    choice = body.get("tool_choice", "auto")
    if choice == "none":
        return ()
    name = choice["name"] if isinstance(choice, dict) else None
    return chosen(tools, name, parallel=body.get("parallel_tool_calls", True))


def _output(answer: Answer) -> list[Body]:
    status = "incomplete" if _incomplete(answer) else "completed"
    if answer.calls:
        return [_function_call(call, status) for call in answer.calls]
    part: Body = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    if answer.ending is Ending.REFUSED:
        part = {"type": "refusal", "refusal": answer.text}
    message = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant"}
    return [message | {"status": status, "content": [part]}]


def _function_call(call: ToolCall, status: str) -> Body:
    return {
        "type": "function_call",
        "id": f"fc_{uuid.uuid4().hex}",
        "call_id": f"call_{uuid.uuid4().hex[:24]}",
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def _incomplete(answer: Answer) -> Body | None:
    match answer.ending:
        case Ending.LENGTH:
            return {"reason": "max_output_tokens"}
        case Ending.FILTERED:
            return {"reason": "content_filter"}
    return None


def _usage(body: Body, output: list[Body]) -> Body:
    asked, said = tokens_of(body), tokens(as_json(output))
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + said,
    }
