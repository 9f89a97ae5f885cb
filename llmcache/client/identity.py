"""Which endpoint and which model a client of instructor asks, when a call does not say.

The endpoint counts in the key, the credentials do not. SDKs keep their endpoint in different
places; a client of which none is known here has no key until it is named with
``wrap(..., endpoint=...)``, since two endpoints must never share an answer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmcache.exceptions import UncacheableRequest
from llmcache.keys import digest

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
API_VERSIONS: Final = {"api-version", "api_version"}
USER_IN_URL: Final = re.compile(r"//[^/@]*@")

# Objects inside an SDK's client that hold some of them.
INNER_CLIENTS: Final = ("meta", "_api_client", "_client_wrapper")
# OpenAI's project is who pays, sent as a header: a credential.
CREDENTIALS: Final = {"openai": {"project"}}


# An attribute in which an SDK keeps its endpoint: whose, and which.
Place = tuple[Any, str]


def endpoint_places(sdk_client: Any, create_fn: Callable[..., Any]) -> tuple[Place, ...]:
    """Where to read the endpoint of a client. Raises `UncacheableRequest` when nowhere.

    Where instructor was given a function instead of a client: at the client that it is a method
    of, or nowhere (an empty tuple) for a plain function, whose name says all there is.
    """
    if sdk_client is None:
        function = getattr(create_fn, "__wrapped__", create_fn)
        owner = getattr(function, "__self__", None)
        if owner is None:
            return ()
        sdk_client = getattr(owner, "_client", owner)
    inner = (getattr(sdk_client, name, None) for name in INNER_CLIENTS)
    places = tuple(
        (holder, name)
        for holder in (sdk_client, *inner)
        for name in ENDPOINT_ATTRIBUTES
        if hasattr(holder, name) and name not in _credentials(holder)
    )
    if not _told(places, _values_at(places)):
        raise UncacheableRequest(
            "endpoint",
            f"where a {type(sdk_client).__name__} sends requests is not known: name it with "
            "llmcache.wrap(client, endpoint=...)",
        )
    return places


class Endpoint:
    """What a client says of its endpoint now: an SDK's `base_url` may be set at any time."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._places = places
        # What was there the last time, and the text of it.
        self._known: tuple[list[Any], str] = [], ""

    def text(self) -> str:
        values = _values_at(self._places)
        known, text = self._known
        if known and all(map(_is_unchanged, known, values)):
            return text
        text = " ".join([f"{name}={value}" for name, value in _told(self._places, values)])
        self._known = list(map(_kept, values)), text
        return text


def _kept(value: Any) -> Any:
    """What to compare with the next time: of what may change in place, a copy."""
    return {**value} if isinstance(value, Mapping) else value


def _is_unchanged(known: Any, value: Any) -> bool:
    return known is value or (type(known) is dict and known == value)


def name_of(create_fn: Callable[..., Any]) -> str:
    """The name of the function that instructor wraps, where there is no SDK's client."""
    function = inspect.unwrap(create_fn)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<>")
    if module is None or "<" in name:
        raise UncacheableRequest(
            "endpoint",
            "the client wraps a function without a name of its own: name where it sends requests "
            "with llmcache.wrap(client, endpoint=...)",
        )
    return f"{module}.{name}"


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


def _credentials(holder: Any) -> set[str]:
    return CREDENTIALS.get(type(holder).__module__.partition(".")[0], set())


def _values_at(places: tuple[Place, ...]) -> list[Any]:
    return [getattr(holder, name, None) for holder, name in places]


def _told(places: tuple[Place, ...], values: list[Any]) -> list[tuple[str, Any]]:
    return [
        (name, _without_secrets(value))
        for (_, name), value in zip(places, values, strict=True)
        if value not in (None, {})
    ]


def _without_secrets(value: Any) -> Any:
    """An endpoint as it may be kept and shown: no user in a URL, no values of a query.

    But for the version of an API (Azure), the values of a query count by their digest.
    """
    if isinstance(value, Mapping):
        return {
            name: item if name in API_VERSIONS else digest(str(item).encode()).hex()[:16]
            for name, item in sorted(value.items())
        }
    text = str(value)
    return USER_IN_URL.sub("//", text) if "@" in text else text
