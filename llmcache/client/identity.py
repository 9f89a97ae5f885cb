"""Which endpoint and which model a client of instructor asks, when a call does not say.

The endpoint counts in the key, the credentials do not. SDKs keep their endpoint in different
places; a client of which none is known here has no key until it is named with
``wrap(..., endpoint=...)``, since two endpoints must never share an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from llmcache.exceptions import UncacheableRequest

# Where SDKs keep what tells one endpoint from another. An SDK's object may hold several.
ENDPOINT_ATTRIBUTES: Final = (
    "base_url",  # openai, anthropic, groq, writer, cerebras, ...
    "_azure_deployment",  # openai, Azure
    "_custom_query",  # openai, anthropic: the API version of Azure, for instance
    "aws_region",  # anthropic on Bedrock
    "region",  # anthropic on Vertex AI
    "project_id",  # likewise
    "endpoint_url",  # boto3
    "vertexai",  # google-genai, and the next three
    "project",
    "location",
    "custom_base_url",
)
# Objects inside an SDK's client that hold some of them.
INNER_CLIENTS: Final = ("meta", "_api_client", "_client_wrapper")
# OpenAI's project is who pays, sent as a header: a credential.
CREDENTIALS: Final = {"openai": {"project"}}


def endpoint_of(sdk_client: Any, create_fn: Callable[..., Any]) -> str:
    """The endpoint as text. Raises `UncacheableRequest` when it cannot be told."""
    if sdk_client is None:
        return _name_of(inspect.unwrap(create_fn))
    inner = (getattr(sdk_client, name, None) for name in INNER_CLIENTS)
    found = [
        f"{name}={value}"
        for holder in (sdk_client, *inner)
        for name, value in _endpoint_attributes(holder)
    ]
    if not found:
        raise UncacheableRequest(
            "endpoint",
            f"where a {type(sdk_client).__name__} sends requests is not known: name it with "
            "llmcache.wrap(client, endpoint=...)",
        )
    return " ".join(found)


def default_model_of(create_fn: Callable[..., Any]) -> str | None:
    """The model that instructor fills in; None when it fills in none.

    Raises `UncacheableRequest` when instructor cannot be asked.
    """
    names: tuple[str, ...] = getattr(getattr(create_fn, "__code__", None), "co_freevars", ())
    if "default_model" not in names:
        raise UncacheableRequest(
            "model",
            "the model that the client fills in is not known: name it with "
            "llmcache.wrap(client, model=...)",
        )
    cells: Any = getattr(create_fn, "__closure__", None)
    model = cells[names.index("default_model")].cell_contents
    return None if model is None else str(model)


def _endpoint_attributes(holder: Any) -> list[tuple[str, Any]]:
    ignored = CREDENTIALS.get(type(holder).__module__.partition(".")[0], set())
    values = {
        name: getattr(holder, name, None) for name in ENDPOINT_ATTRIBUTES if name not in ignored
    }
    return [(name, value) for name, value in values.items() if value not in (None, {})]


def _name_of(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<>")
    if module is None or "<" in name:
        raise UncacheableRequest(
            "endpoint",
            "the client wraps a function without a name of its own: name where it sends requests "
            "with llmcache.wrap(client, endpoint=...)",
        )
    return f"{module}.{name}"
