"""Bodies of requests and responses over HTTP as messages, whichever dialect they are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from llmcache.admin.entries.conversation import Message, read_messages, system_message

# The fields of a body that are instructions to the model, and those that are a list of messages.
# What is in any other field, the user has said: a prompt, texts, a query.
INSTRUCTIONS: Final = ("system", "instructions", "systemInstruction", "system_instruction")
MESSAGES: Final = frozenset({"messages", "contents"})


def read_conversation(asked: Any) -> list[Message]:
    """What was asked: a list of messages, or the fields of a body that people read."""
    if not isinstance(asked, dict) or "role" in asked:
        return read_messages(asked)
    return [message for name, value in asked.items() for message in _spoken(name, value)]


def _spoken(name: str, value: Any) -> list[Message]:
    if name in INSTRUCTIONS:
        inner = value.get("parts", value) if isinstance(value, dict) else value
        return [system_message(inner)]
    if name in MESSAGES:
        return read_messages(value)
    if name == "requests":  # (of Gemini's vectors)
        contents = [each for request in _objects({name: value}, name) for each in _content(request)]
        return read_messages([{"role": "user", **each} for each in contents])
    if name == "input" and isinstance(value, list):  # (of OpenAI's Responses, or texts to embed)
        return read_messages([_item(each) for each in value])
    return read_messages([{"role": "user", "content": value}])


def read_said(answer: Any) -> list[Message]:
    """What a provider has answered; nothing where no model spoke, as with embeddings."""
    return read_messages(list(_said(answer))) if isinstance(answer, dict) else []


def _said(answer: dict[str, Any]) -> Iterator[Any]:
    for choice in _objects(answer, "choices"):  # OpenAI's chat, and completions
        yield choice.get("message") or {"role": "assistant", "content": choice.get("text")}
    for candidate in _objects(answer, "candidates"):  # Gemini's
        yield {"role": "model", **(candidate.get("content") or {})}
    for item in _objects(answer, "output"):  # OpenAI's Responses
        yield _item(item)
    if isinstance(message := answer.get("message"), dict):  # Cohere's
        yield {"role": "assistant", **message}
    elif answer.get("role") == "assistant":  # Anthropic's
        yield {"role": "assistant", "content": answer.get("content")}


def _objects(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    listed = answer.get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _content(request: dict[str, Any]) -> list[dict[str, Any]]:
    return _objects({"content": [request.get("content")]}, "content")


def _item(item: Any) -> Any:
    """An item of OpenAI's Responses as a message: one, a tool's call, or its result."""
    if isinstance(item, str):
        return {"role": "user", "content": item}
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        return {"role": "assistant", "tool_calls": [{"function": function}]}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    if "role" in item:
        return {"role": item["role"], "content": item.get("content")}
    return {"role": "assistant", "content": [item]}
