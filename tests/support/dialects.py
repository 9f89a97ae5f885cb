"""A stand-in for a model that speaks the protocols of all providers whose SDKs are tested.

It answers by the path that it is asked at: for each call another number, with the tokens that it
has cost; for each text a vector of its own (see `tests.support.vectors`). `cut` makes it end each
answer for want of room, as each protocol says that. Where there are tools it calls the first of
them; with `steps`, only until so many results have come back.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support import vectors

INPUT, OUTPUT = 50, 10

Body = dict[str, Any]
Events = Iterator[tuple[str, Body | str]]


class Model:
    """The server. `asked` counts the calls, and `bodies` has what they were.

    `change` makes of the bytes of an answer those that are sent; `status` is the one of all.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.cut = False
        self.bodies: list[Body] = []
        self.status = 200
        self.change: Callable[[bytes], bytes] = bytes
        self.steps: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(model: Model) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:  # what an SDK asks to warm its connection
            self._send("application/json", b"{}")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            model.asked += 1
            model.bodies.append(body)
            if model.steps is not None and _results(body) >= model.steps:
                body = body | {"tools": None}
            answer = {"name": "Rome", "hills": model.asked}
            said = _said(self.path.partition("?")[0], body, answer, model.cut)
            if isinstance(said, dict):
                self._send("application/json", model.change(json.dumps(said).encode()))
            else:
                self._send("text/event-stream", b"".join(map(_event, said)))

        def _send(self, kind: str, content: bytes) -> None:
            with contextlib.suppress(OSError):
                self.send_response(model.status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

    return Handler


def _event(event: tuple[str, Body | str]) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode() if name else f"data: {text}\n\n".encode()


def _said(path: str, body: Body, answer: Body, cut: bool) -> Body | Events:
    is_stream = bool(body.get("stream")) or "stream" in path.rpartition(":")[2]
    whole, streamed = next(dialect for end, dialect in DIALECTS.items() if path.endswith(end))
    return streamed(body, answer, cut) if is_stream else whole(body, answer, cut)


def _results(body: Body) -> int:
    """How many results of tools are in the conversation."""
    said = body.get("messages") or body.get("input")
    items = [item for item in said if isinstance(item, dict)] if isinstance(said, list) else []
    blocks = [item["content"] for item in items if isinstance(item.get("content"), list)]
    items += [block for content in blocks for block in content if isinstance(block, dict)]
    marks = [(item.get("role"), item.get("type")) for item in items]
    return sum(role == "tool" or kind in RESULTS for role, kind in marks)


RESULTS = {"function_call_output", "tool_result"}


def _call_id(answer: Body) -> str:
    return f"c{answer.get('hills', 0):08}"  # (of nine characters, as Mistral wants it)


def _pieces(answer: Body) -> list[str]:
    # What instructor asks for as a stream is one object, or a list of them under "tasks".
    text = json.dumps(answer)
    return [text[at : at + 7] for at in range(0, len(text), 7)]


def _wanted(body: Body, answer: Body) -> Body:
    """The answer, in a list where the schema wants that."""
    return {"tasks": [answer]} if '"tasks"' in json.dumps(body) else answer


# OpenAI's chat completions, which most providers speak


def _usage_of_chat() -> Body:
    return {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}


def chat(body: Body, answer: Body, cut: bool) -> Body:
    text = json.dumps(answer)
    message: Body = {"role": "assistant", "content": text}
    if tools := body.get("tools"):
        function = {"name": tools[0]["function"]["name"], "arguments": text}
        call = {"id": _call_id(answer), "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    finish = "length" if cut else "tool_calls" if tools else "stop"
    message |= {"refusal": None, "annotations": []}
    choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": None}
    return _completion("chat.completion", body, choice) | {"usage": _usage_of_chat()}


def chat_stream(body: Body, answer: Body, cut: bool) -> Events:
    tools = body.get("tools")
    pieces = _pieces(_wanted(body, answer))
    if body.get("tool_choice") == "any":  # Mistral gives the arguments of a tool as a whole
        pieces = ["".join(pieces)]
    for index, piece in enumerate(pieces):
        delta: Body = {"role": "assistant", "content": piece}
        if tools:
            function = {"name": tools[0]["function"]["name"], "arguments": piece}
            call = {"index": 0, "id": _call_id(answer), "type": "function", "function": function}
            delta = {"role": "assistant", "content": None, "tool_calls": [call]}
            if index:
                del function["name"], call["id"]
        yield "", _completion("chat.completion.chunk", body, {"index": 0, "delta": delta})
    finish = "length" if cut else "tool_calls" if tools else "stop"
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": finish}
    yield "", _completion("chat.completion.chunk", body, last) | {"usage": _usage_of_chat()}
    yield "", "[DONE]"


def _completion(kind: str, body: Body, choice: Body) -> Body:
    choice = {"finish_reason": None} | choice
    made = {"id": "x1", "object": kind, "created": 1, "model": body.get("model", "m")}
    return made | {"choices": [choice], "system_fingerprint": "f1"}


# Anthropic's messages


def messages(body: Body, answer: Body, cut: bool) -> Body:
    text: Body = {"type": "text", "text": json.dumps(answer)}
    if tools := body.get("tools"):
        text = {
            "type": "tool_use",
            "id": _call_id(answer),
            "name": tools[0]["name"],
            "input": answer,
        }
    finish = "max_tokens" if cut else "tool_use" if tools else "end_turn"
    return _message(body, [text]) | {"stop_reason": finish}


def messages_stream(body: Body, answer: Body, cut: bool) -> Events:
    tools = body.get("tools")
    block: Body = {"type": "text", "text": ""}
    if tools:
        block = {"type": "tool_use", "id": _call_id(answer), "name": tools[0]["name"], "input": {}}
    events: list[Body] = [{"type": "message_start", "message": _message(body, [])}]
    events += [{"type": "content_block_start", "index": 0, "content_block": block}]
    for piece in _pieces(_wanted(body, answer)):
        delta = {"type": "text_delta", "text": piece}
        if tools:
            delta = {"type": "input_json_delta", "partial_json": piece}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    finish = "max_tokens" if cut else "tool_use" if tools else "end_turn"
    end = {"stop_reason": finish, "stop_sequence": None}
    events += [{"type": "content_block_stop", "index": 0}]
    events += [{"type": "message_delta", "delta": end, "usage": {"output_tokens": OUTPUT}}]
    events += [{"type": "message_stop"}]
    for event in events:
        yield event["type"], event


def _message(body: Body, content: list[Body]) -> Body:
    usage = {"input_tokens": INPUT, "output_tokens": OUTPUT}
    made = {"id": "m1", "type": "message", "role": "assistant", "model": body.get("model", "m")}
    return made | {"content": content, "stop_reason": None, "stop_sequence": None, "usage": usage}


# Google's Gemini


def gemini(body: Body, answer: Body, cut: bool) -> Body:
    part: Body = {"text": json.dumps(answer)}
    if tools := body.get("tools"):
        name = tools[0]["functionDeclarations"][0]["name"]
        part = {"functionCall": {"name": name, "args": answer}}
    return _candidate(part, "MAX_TOKENS" if cut else "STOP")


def gemini_stream(body: Body, answer: Body, cut: bool) -> Events:
    answer = _wanted(body, answer)
    if body.get("tools"):
        yield "", gemini(body, answer, cut)
        return
    for piece in _pieces(answer):
        yield "", _candidate({"text": piece}, None)
    yield "", _candidate({"text": ""}, "MAX_TOKENS" if cut else "STOP")


def _candidate(part: Body, finish: str | None) -> Body:
    candidate: Body = {"content": {"role": "model", "parts": [part]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}


# Cohere's chat


def cohere(body: Body, answer: Body, cut: bool) -> Body:
    message = {"role": "assistant", "content": [{"type": "text", "text": json.dumps(answer)}]}
    return {"id": "c1", "message": message} | _end_of_cohere(cut)


def cohere_stream(body: Body, answer: Body, cut: bool) -> Events:
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    events: list[Body] = [{"type": "message-start", "id": "c1", "delta": {"message": start}}]
    block = {"message": {"content": {"type": "text", "text": ""}}}
    events += [{"type": "content-start", "index": 0, "delta": block}]
    for piece in _pieces(_wanted(body, answer)):
        delta = {"message": {"content": {"text": piece}}}
        events.append({"type": "content-delta", "index": 0, "delta": delta})
    events += [{"type": "content-end", "index": 0}]
    events += [{"type": "message-end", "id": "c1", "delta": _end_of_cohere(cut)}]
    for event in events:
        yield event["type"], event


def _end_of_cohere(cut: bool) -> Body:
    tokens = {"input_tokens": INPUT, "output_tokens": OUTPUT}
    usage = {"billed_units": tokens, "tokens": tokens}
    return {"finish_reason": "MAX_TOKENS" if cut else "COMPLETE", "usage": usage}


# Amazon's Bedrock


def converse(body: Body, answer: Body, cut: bool) -> Body:
    content: Body = {"text": json.dumps(answer)}
    if config := body.get("toolConfig"):
        name = config["tools"][0]["toolSpec"]["name"]
        content = {"toolUse": {"toolUseId": "t1", "name": name, "input": answer}}
    finish = "max_tokens" if cut else "tool_use" if config else "end_turn"
    usage = {"inputTokens": INPUT, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT}
    message = {"role": "assistant", "content": [content]}
    made = {"output": {"message": message}, "stopReason": finish, "metrics": {"latencyMs": 1}}
    return made | {"usage": usage}


# OpenAI's responses


def responses(body: Body, answer: Body, cut: bool) -> Body:
    status = "incomplete" if cut else "completed"
    usage: Body = {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    usage["input_tokens_details"] = {"cached_tokens": 0}
    usage["output_tokens_details"] = {"reasoning_tokens": 0}
    said: Body = {"id": "r1", "object": "response", "created_at": 1, "model": body["model"]}
    said |= {"status": status, "usage": usage, "error": None, "parallel_tool_calls": True}
    said |= {"incomplete_details": {"reason": "max_output_tokens"} if cut else None}
    item = _item_of_response(body, answer) | {"status": status}
    return said | {"output": [item], "tool_choice": "auto", "tools": []}


def _item_of_response(body: Body, answer: Body) -> Body:
    text = json.dumps(answer)
    if tools := body.get("tools"):
        call = {"type": "function_call", "id": "f1", "call_id": _call_id(answer)}
        return call | {"name": tools[0]["name"], "arguments": text}
    content = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m1", "role": "assistant", "content": [content]}


def responses_stream(body: Body, answer: Body, cut: bool) -> Events:
    whole = responses(body, answer, cut)
    [item] = whole["output"]
    begun: Body = whole | {"status": "in_progress", "output": [], "incomplete_details": None}
    place: Body = {"item_id": item["id"], "output_index": 0}
    events: list[Body] = [{"type": "response.created", "response": begun}]
    if item["type"] == "message":
        kind = "response.output_text.delta"
        place |= {"content_index": 0, "logprobs": []}
    else:
        kind = "response.function_call_arguments.delta"
        opened = item | {"arguments": "", "status": "in_progress"}
        events.append({"type": "response.output_item.added", "output_index": 0, "item": opened})
    events += [place | {"type": kind, "delta": piece} for piece in _pieces(answer)]
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    for number, event in enumerate(events):
        yield str(event["type"]), event | {"sequence_number": number}


# (of what is never streamed)
def none(body: Body, answer: Body, cut: bool) -> Events:
    return iter(())


Dialect = tuple[Callable[[Body, Body, bool], Body], Callable[[Body, Body, bool], Events]]
# By the end of the path, the longer ones first.
DIALECTS: dict[str, Dialect] = {
    "/responses": (responses, responses_stream),
    "/chat/completions": (chat, chat_stream),
    "/v2/chat": (cohere, cohere_stream),
    "/v1/chat": (chat, chat_stream),
    "/messages": (messages, messages_stream),
    ":generateContent": (gemini, gemini_stream),
    ":streamGenerateContent": (gemini, gemini_stream),
    "/converse": (converse, none),
    "/embeddings": (vectors.openai, none),
    "/v2/embed": (vectors.cohere, none),
    ":batchEmbedContents": (vectors.gemini, none),
    ":embedContent": (vectors.gemini_alone, none),
    "/rerank": (vectors.ranking, none),
}
