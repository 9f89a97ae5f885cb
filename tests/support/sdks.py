"""The SDK of each provider, as a client of instructor that asks a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import instructor
from pydantic import BaseModel


class City(BaseModel):
    name: str
    hills: int


Make = Callable[[str, bool], Any]


def azure_openai(root: str, is_async: bool) -> Any:
    import openai

    cls: Any = openai.AsyncAzureOpenAI if is_async else openai.AzureOpenAI
    sdk = cls(api_key="k", azure_endpoint=root, api_version="2024-10-21")
    return instructor.from_openai(sdk, model="m")


def anthropic(root: str, is_async: bool) -> Any:
    import anthropic

    cls: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    return instructor.from_anthropic(cls(api_key="k", base_url=root), model="m", max_tokens=9)


def google(root: str, is_async: bool) -> Any:
    from google import genai

    sdk = genai.Client(api_key="k", http_options={"base_url": root})
    wrapped: Any = instructor.from_genai
    return wrapped(sdk, use_async=is_async, model="m")


def bedrock(root: str, is_async: bool) -> Any:
    import boto3  # type: ignore[import-untyped]

    secrets = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    sdk = boto3.client("bedrock-runtime", "eu-north-1", endpoint_url=root, **secrets)
    wrapped: Any = instructor.from_bedrock
    return wrapped(sdk, async_client=is_async, model="m")
