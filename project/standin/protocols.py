"""The wire formats: from a provider's request to its reply, with the rules as the model.

Sources: the OpenAI reference for chat completions, the Anthropic reference for messages, and the
requests that instructor's modes TOOLS, PARALLEL_TOOLS, JSON, MD_JSON and JSON_SCHEMA make of them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from project.standin.rules import fill

Body = dict[str, Any]

FINGERPRINT = "fp_stand_in"
MODELS_PATH = "/v1/models"
OPENAI_PATH = "/v1/chat/completions"
ANTHROPIC_PATH = "/v1/messages"

# instructor's MD_JSON mode puts this after the text; it is no part of what there is to read.
MARKDOWN_REQUEST = "Return the correct JSON response within a ```json codeblock"


@dataclass(frozen=True)
class Reply:
    """What goes back over the wire."""

    status: int
    body: Body


@dataclass(eq=False)
class Refusal(Exception):
    """The request is not one that the protocol allows."""

    message: str
    param: str | None = None
    status: int = 400
    code: str | None = None


def reply(method: str, path: str, body: Body | None) -> Reply:
    """Answer one request as the provider would, errors included."""
    try:
        return Reply(200, _route(method, path, body))
    except Refusal as refusal:
        return failure(path, refusal.status, refusal.message, refusal.param, refusal.code)


def failure(
    path: str, status: int, message: str, param: str | None = None, code: str | None = None
) -> Reply:
    """An error in the words of the provider whose path was asked."""
    if path.startswith(ANTHROPIC_PATH):
        error = {"type": _ANTHROPIC_ERRORS.get(status, "api_error"), "message": message}
        return Reply(status, {"type": "error", "error": error})
    kind = _OPENAI_ERRORS.get(status, "server_error")
    return Reply(
        status, {"error": {"message": message, "type": kind, "param": param, "code": code}}
    )


_OPENAI_ERRORS = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
}

_ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _route(method: str, path: str, body: Body | None) -> Body:
    if (method, path) == ("GET", MODELS_PATH):
        return _models()
    answer = {OPENAI_PATH: _chat_completion, ANTHROPIC_PATH: _message}.get(path)
    if answer is None:
        raise Refusal(f"Unknown request URL: {method} {path}.", status=404, code="unknown_url")
    if method != "POST":
        raise Refusal(f"Not allowed to {method} on {path} (use POST).", status=405)
    return answer(_checked(body))


def _checked(body: Body | None) -> Body:
    if body is None:
        raise Refusal("We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str):
        raise Refusal("You must provide a model parameter.", "model")
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refusal("Missing required parameter: 'messages'.", "messages")
    if body.get("stream"):
        raise Refusal("The stand-in does not stream.", "stream", code="unsupported_value")
    return body


def _models() -> Body:
    model = {"id": "stand-in", "object": "model", "created": 0, "owned_by": "llmcache"}
    return {"object": "list", "data": [model]}


# OpenAI


def _chat_completion(body: Body) -> Body:
    message, finish = _openai_message(body)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _openai_usage(body, message),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _openai_message(body: Body) -> tuple[Body, str]:
    message: Body = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    chosen, forced = _openai_tools(body)
    if chosen:
        calls = [_tool_call(tool, read(body)) for tool in chosen]
        return message | {"tool_calls": calls}, "stop" if forced else "tool_calls"
    content, finish = _cut(_openai_content(body), _limit(body))
    return message | {"content": content}, finish


def _openai_tools(body: Body) -> tuple[list[Body], bool]:
    """The functions to call, and whether the request named the one."""
    functions = [tool.get("function") or {} for tool in body.get("tools") or []]
    choice = body.get("tool_choice", "auto")
    if choice == "none":
        return [], False
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        named = [function for function in functions if function.get("name") == wanted]
        if not named:
            raise Refusal(f"Tool choice '{wanted}' not found in 'tools'.", "tool_choice")
        return named, True
    return functions if body.get("parallel_tool_calls", True) else functions[:1], False


def _tool_call(function: Body, text: str) -> Body:
    arguments = _json(fill(function.get("parameters") or {}, text))
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _openai_content(body: Body) -> str:
    wanted = body.get("response_format") or {}
    text = read(body)
    if wanted.get("type") == "json_schema":
        return _json(fill((wanted.get("json_schema") or {}).get("schema") or {}, text))
    schema = _schema_in(_instructions(body))
    if wanted.get("type") == "json_object":
        return _json(fill(schema or {"type": "object"}, text))
    if schema is not None:
        return f"```json\n{_json(fill(schema, text))}\n```"
    return _chat(text)


def _openai_usage(body: Body, message: Body) -> Body:
    asked, said = _tokens(_json(body)), _tokens(_json(message))
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


# Anthropic


def _message(body: Body) -> Body:
    content, reason = _anthropic_content(body)
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _anthropic_usage(body, content),
    }


def _anthropic_content(body: Body) -> tuple[list[Body], str]:
    if chosen := _anthropic_tools(body):
        return [_tool_use(tool, read(body)) for tool in chosen], "tool_use"
    text, finish = _cut(_anthropic_text(body), _limit(body))
    reason = "max_tokens" if finish == "length" else "end_turn"
    return [{"type": "text", "text": text}], reason


def _anthropic_tools(body: Body) -> list[Body]:
    tools = body.get("tools") or []
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice.get("type") == "none":
        return []
    if choice.get("type") == "tool":
        named = [tool for tool in tools if tool.get("name") == choice.get("name")]
        if not named:
            raise Refusal(f"Tool '{choice.get('name')}' not found in provided tools")
        return named
    return tools[:1] if choice.get("disable_parallel_tool_use") else list(tools)


def _tool_use(tool: Body, text: str) -> Body:
    return {
        "type": "tool_use",
        "id": f"toolu_{uuid.uuid4().hex[:24]}",
        "name": tool.get("name"),
        "input": fill(tool.get("input_schema") or {}, text),
    }


def _anthropic_text(body: Body) -> str:
    schema = _schema_in(_instructions(body))
    text = read(body)
    return _chat(text) if schema is None else _json(fill(schema, text))


def _anthropic_usage(body: Body, content: list[Body]) -> Body:
    return {
        "input_tokens": _tokens(_json(body)),
        "output_tokens": _tokens(_json(content)),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


# Both


def read(body: Body) -> str:
    """The text to read: what the user said before the first answer.

    What comes later is instructor asking again with the validation errors of the first attempt,
    which is about the text, and not text to read.
    """
    said = []
    for message in body["messages"]:
        if message.get("role") == "assistant":
            break
        if message.get("role") == "user":
            said.append(_flat(message.get("content")))
    return "\n\n".join(said).partition(MARKDOWN_REQUEST)[0].strip()


def _instructions(body: Body) -> str:
    system = [_flat(body.get("system"))]
    system += [_flat(m.get("content")) for m in body["messages"] if m.get("role") == "system"]
    return "\n\n".join(system)


def _flat(content: object) -> str:
    return "\n".join(_texts(content))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part)
    elif isinstance(content, dict):
        yield from _texts(content.get("text"))


def _schema_in(instructions: str) -> Body | None:
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


def _chat(text: str) -> str:
    opening = " ".join(text.split())[:120]
    return f"This is a stand-in and no model. The text begins: “{opening}”"


def _limit(body: Body) -> int | None:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def _cut(content: str, limit: int | None) -> tuple[str, str]:
    """Break off at the limit of tokens, as a model does, and say so."""
    if limit is None or _tokens(content) <= limit:
        return content, "stop"
    return content[: limit * CHARACTERS_PER_TOKEN], "length"


CHARACTERS_PER_TOKEN = 4


def _tokens(text: str) -> int:
    """An estimate: about four characters to a token, which is how English comes out."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
