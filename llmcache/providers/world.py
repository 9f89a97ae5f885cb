"""Calls whose answers do not follow from what is asked.

Some go on with a state that the provider keeps and changes. Some let the model look at the world:
search the web, read files, run code; or at a prompt of the team's that is kept at the provider. The
same question has another answer tomorrow, so it is for the caller to say how long such an answer
will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel

from llmcache.providers.arguments import is_not_given
from llmcache.reasons import Reason, ReasonCode

# Where else providers take tools and options: in the body of OpenAI's, the config of Gemini.
HOLDERS: Final = ("extra_body", "config", "toolConfig", "tool_config")
STATEFUL: Final = {"conversation": ReasonCode.CONVERSATION, "background": ReasonCode.BACKGROUND}
# (OpenAI's chat, xAI, Anthropic, Cohere, OpenRouter, Azure, Qwen)
SEARCHING: Final = frozenset(
    {
        *("connectors", "data_sources", "enable_search", "mcp_servers", "plugins"),
        *("search_parameters", "web_search_options"),
    }
)
# A prompt that is stored at the provider, in Responses.
STORED_PROMPT: Final = "prompt"
WATCHED: Final = SEARCHING | STATEFUL.keys() | {"tools", STORED_PROMPT, *HOLDERS}

# Tools that the caller carries out, or that look at nothing. A tool of any other type looks.
PLAIN_TYPES: Final = re.compile(
    r"(function|custom|image_generation|local_shell|apply_patch"
    r"|(text_editor|memory|tool_search)\w*)"
)
# What such a tool consists of, where it has no type. Gemini names its own by another key.
PLAIN_KEYS: Final = frozenset(
    {
        *("name", "description", "parameters", "parameter_definitions", "strict", "function"),
        *("input_schema", "input_examples", "cache_control", "allowed_callers", "defer_loading"),
        *("function_declarations", "functionDeclarations", "toolSpec", "cachePoint"),
    }
)
PLAIN_PLUGINS: Final = frozenset({"file-parser", "response-healing"})

# Models that search by themselves: of Perplexity, Groq, OpenRouter and OpenAI.
SEARCHING_MODEL: Final = re.compile(
    r"(^|/)(sonar|compound)|[:-]online\b|-search-(preview|api)|deep-research", re.IGNORECASE
)


@lru_cache(maxsize=1000)
def searches(model: str) -> bool:
    """Whether a model with this name looks at the world, whatever it is asked."""
    return SEARCHING_MODEL.search(model) is not None


def why_stateful(arguments: Mapping[str, Any]) -> Reason | None:
    """Why these arguments go on with a state of the provider; None where they do not."""
    for holder in _holders(arguments):
        for name, code in STATEFUL.items():
            if _is_on(holder.get(name)):
                return code()
    return None


def what_looks(arguments: Mapping[str, Any]) -> str:
    """What lets the model look at the world, in a word; empty where nothing does."""
    for holder in _holders(arguments):
        for name in SEARCHING.intersection(holder):
            if _searches(name, holder[name]):
                return name
        # (which a body names instead of the call's, or for when that fails: OpenRouter)
        models = [*_listed(holder.get("model")), *_listed(holder.get("models"))]
        if any(isinstance(model, str) and searches(model) for model in models):
            return "the model"
        prompt = _fields(holder.get(STORED_PROMPT))
        if prompt and not _is_on(prompt.get("version")):
            return "a stored prompt without a version"
        for tool in _listed(holder.get("tools")):
            if kind := _looking(_fields(tool)):
                return kind
    return ""


def _holders(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield arguments
    for name in HOLDERS:
        if name in arguments:
            yield _fields(arguments[name])


def _fields(value: Any) -> Mapping[str, Any]:
    if isinstance(value, BaseModel):
        return {name: item for name, item in value if item is not None}
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else (value,)


def _is_on(value: Any) -> bool:
    return value is not None and value is not False and not is_not_given(value)


def _searches(name: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        kinds = {_fields(item).get("id") for item in value}
        return bool(value) and not (name == "plugins" and kinds <= PLAIN_PLUGINS)
    return _is_on(value) and _fields(value).get("mode") != "off"  # (of xAI)


def _looking(tool: Mapping[str, Any]) -> str:
    """The type of a tool that looks at the world; empty for others."""
    if isinstance(kind := tool.get("type"), str):
        return "" if PLAIN_TYPES.fullmatch(kind) else kind
    return next((name for name in tool if name not in PLAIN_KEYS and _is_on(tool[name])), "")
