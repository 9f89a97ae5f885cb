"""A model in the process, whose answers can be told from wrong ones, and whose time is known."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import instructor
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

import llmcache


class Answer(BaseModel):
    """What the model says: the question it was asked, and a number."""

    question: str
    number: int


def checksum(question: str) -> int:
    """A number that belongs to the question."""
    return zlib.crc32(question.encode())


class Model:
    """Answers each question with the number that `number` has for it, after `latency` seconds."""

    def __init__(self, number: Callable[[str], int] = checksum, *, latency: float = 0.0) -> None:
        self.number = number
        self.latency = latency
        self.asked = 0

    def client(self, *, is_async: bool = False, model: str = "model", **options: Any) -> Any:
        """A client of llmcache that asks this model. All of them share their entries."""
        answer = self._aanswer if is_async else self._answer
        plain = instructor.from_litellm(answer)
        plain.create_fn = (_atimed if is_async else _timed)(plain.create_fn)
        return llmcache.wrap(plain, model=model, endpoint="in the process", **options)

    def _answer(self, **request: Any) -> ChatCompletion:
        time.sleep(self.latency)
        return self._completion(request)

    async def _aanswer(self, **request: Any) -> ChatCompletion:
        await asyncio.sleep(self.latency)
        return self._completion(request)

    def _completion(self, request: dict[str, Any]) -> ChatCompletion:
        self.asked += 1
        question = request["messages"][-1]["content"]
        answer = Answer(question=question, number=self.number(question))
        name = request["tools"][0]["function"]["name"]
        return completion(name, answer.model_dump_json())


def call_for(question: str, **more: Any) -> dict[str, Any]:
    """The arguments of the call that asks `question`."""
    messages = [{"role": "user", "content": question}]
    return {"response_model": Answer, "messages": messages, **more}


def completion(tool: str, arguments: str) -> ChatCompletion:
    """A response of OpenAI's protocol that calls one tool."""
    call = {"id": "c", "type": "function", "function": {"name": tool, "arguments": arguments}}
    message = {"role": "assistant", "tool_calls": [call]}
    return ChatCompletion.model_validate(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "model",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


# Seconds that the calls of this context have spent in instructor and the model.
spent: ContextVar[list[float] | None] = ContextVar("spent", default=None)


def _timed(create: Any) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return create(*args, **kwargs)
        finally:
            _note(time.perf_counter() - started)

    return timed


def _atimed(create: Any) -> Any:
    async def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return await create(*args, **kwargs)
        finally:
            _note(time.perf_counter() - started)

    return timed


def _note(seconds: float) -> None:
    times = spent.get()
    if times is not None:
        times.append(seconds)
