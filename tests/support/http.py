"""Plain SDKs over HTTP, as their users call them: asking once, and reading a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Message = list[dict[str, str]]


def messages(text: str) -> Message:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class Sdk:
    """How the client of an SDK is made, and asked.

    `make` is given the address and whether it is asynchronous, `ask` and `stream` the client and a
    question.
    """

    make: Callable[[str, bool], Any]
    ask: Callable[[Any, str], Any]
    stream: Callable[[Any, str], Any] | None = None

    def answers(self, client: Any, questions: list[str], *, is_async: bool) -> list[Any]:
        """What comes back, as plain data."""
        if not is_async:
            return [plain(self.ask(client, question)) for question in questions]

        async def asked() -> list[Any]:
            return [plain(await self.ask(client, question)) for question in questions]

        return asyncio.run(asked())

    def streams(self, client: Any, questions: list[str], *, is_async: bool) -> list[list[Any]]:
        """The chunks that come back for each, as plain data."""
        stream = self.stream
        assert stream is not None
        if not is_async:
            return [list(map(plain, _list(stream(client, each)))) for each in questions]

        async def read() -> list[Any]:
            return [list(map(plain, await _read(stream(client, each)))) for each in questions]

        return asyncio.run(read())


async def _read(came: Any) -> list[Any]:
    stream = await came if hasattr(came, "__await__") else came
    if hasattr(stream, "__aenter__") and not hasattr(stream, "__aiter__"):
        async with stream as opened:
            return [item async for item in opened]
    return [item async for item in stream]


def _list(came: Any) -> list[Any]:
    if hasattr(came, "__enter__") and not hasattr(came, "__iter__"):
        with came as opened:
            return list(opened)
    return list(came)


def plain(value: Any) -> Any:
    """An object of an SDK as data; what tells which HTTP response it is from is left out."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude={"sdk_http_response"})
    return value


def openai(root: str, is_async: bool) -> Any:
    import openai

    cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    return cls(api_key="k", base_url=f"{root}/v1")


def azure(root: str, is_async: bool) -> Any:
    import openai

    cls: Any = openai.AsyncAzureOpenAI if is_async else openai.AzureOpenAI
    return cls(api_key="k", azure_endpoint=root, api_version="2024-10-21")


def groq(root: str, is_async: bool) -> Any:
    import groq

    cls: Any = groq.AsyncGroq if is_async else groq.Groq
    return cls(api_key="k", base_url=root)


def anthropic(root: str, is_async: bool) -> Any:
    import anthropic

    cls: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    return cls(api_key="k", base_url=root)


def google(root: str, is_async: bool) -> Any:
    from google import genai

    return genai.Client(api_key="k", http_options={"base_url": root})


def mistral(root: str, is_async: bool) -> Any:
    from mistralai.client import Mistral

    return Mistral(api_key="k", server_url=root)


def cohere(root: str, is_async: bool) -> Any:
    import cohere

    cls: Any = cohere.AsyncClientV2 if is_async else cohere.ClientV2
    return cls(api_key="k", base_url=root)


def chat(client: Any, question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=messages(question), **more)


def respond(client: Any, question: str, **more: Any) -> Any:
    return client.responses.create(model="m", input=question, **more)


def message(client: Any, question: str, **more: Any) -> Any:
    asked = messages(question)
    return client.messages.create(model="m", max_tokens=9, messages=asked, **more)


def generate(client: Any, question: str) -> Any:
    return client.models.generate_content(model="m", contents=question)


def agenerate(client: Any, question: str) -> Any:
    return client.aio.models.generate_content(model="m", contents=question)


SDKS = {
    "openai chat": Sdk(openai, chat, lambda c, q: chat(c, q, stream=True)),
    "openai responses": Sdk(openai, respond, lambda c, q: respond(c, q, stream=True)),
    "azure": Sdk(azure, chat, lambda c, q: chat(c, q, stream=True)),
    "groq": Sdk(groq, chat, lambda c, q: chat(c, q, stream=True)),
    "anthropic": Sdk(anthropic, message, lambda c, q: message(c, q, stream=True)),
    "google": Sdk(
        google,
        generate,
        lambda c, q: c.models.generate_content_stream(model="m", contents=q),
    ),
    "mistral": Sdk(
        mistral,
        lambda c, q: c.chat.complete(model="m", messages=messages(q)),
        lambda c, q: c.chat.stream(model="m", messages=messages(q)),
    ),
    "cohere": Sdk(
        cohere,
        lambda c, q: c.chat(model="m", messages=messages(q)),
        lambda c, q: c.chat_stream(model="m", messages=messages(q)),
    ),
}
ASYNC_SDKS = SDKS | {
    "google": Sdk(
        google,
        agenerate,
        lambda c, q: c.aio.models.generate_content_stream(model="m", contents=q),
    ),
    "mistral": Sdk(
        mistral,
        lambda c, q: c.chat.complete_async(model="m", messages=messages(q)),
        lambda c, q: c.chat.stream_async(model="m", messages=messages(q)),
    ),
}
