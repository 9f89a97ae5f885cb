"""Which endpoint and which model a client of instructor asks, when a call does not say.

The endpoint counts in the key, and so do the headers of a client that choose the answer; the
credentials do not. SDKs keep them in different places; a client of which none is known here has no
key until it is named with ``wrap(..., endpoint=...)``, since two endpoints must never share an
answer.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from llmcache.exceptions import UncacheableRequest
from llmcache.providers.addresses import address_in_words
from llmcache.providers.headers import (
    Headers,
    counted_of_call,
    counted_on_client,
    in_words,
)
from llmcache.reasons import ReasonCode

Paths = tuple[str, ...]


@dataclass(frozen=True)
class Sdk:
    """Where the client of an SDK keeps what tells one endpoint from another, as paths from it.

    `must`: what has to be told there, or the endpoint is not known; `may`: what tells more;
    `more`: what no attribute tells; `headers`: those that its user gave it, not those that the SDK
    adds; `unseen`: why the endpoint cannot be known at all.
    """

    must: Paths = ()
    may: Paths = ()
    headers: Paths = ()
    more: Callable[[Any], dict[str, Any]] = lambda client: {}
    unseen: str = ""


def _server_of(mistral: Any) -> dict[str, Any]:
    # By its address, whether or not it has a name, which the SDK fills in at the first request.
    return {"server_url": mistral.sdk_configuration.get_server_details()[0], "server": None}


def _environment_of(litellm: Any) -> dict[str, Any]:
    """Where LiteLLM finds endpoints: variables of the environment by the names of providers."""
    providers = {str(getattr(name, "value", name)) for name in litellm.provider_list}
    known = {name.replace("_", "").upper() for name in providers}
    return {"module": "litellm"} | {
        name: value
        for name, value in sorted(os.environ.items())
        if name in OTHERS_IN_ENVIRONMENT
        or ((match := IN_ENVIRONMENT.fullmatch(name)) and match[1].replace("_", "") in known)
    }


IN_ENVIRONMENT: Final = re.compile(r"(\w+)_(?:API_BASE|API_URL|API_VERSION|BASE_URL)")
OTHERS_IN_ENVIRONMENT: Final = {
    *("AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_REGION_NAME"),
    *("VERTEXAI_LOCATION", "VERTEXAI_PROJECT"),
}

# Most SDKs are made by one generator. An HTTP client that the user gave adds what it has itself.
QUERIES: Final = ("_custom_query", "_client.params")
HEADERS: Final = ("_custom_headers", "_client.headers")
COMMON: Final = Sdk(("base_url",), QUERIES, HEADERS)
MODEL_INSIDE: Final = "keeps the endpoint, the model and its instructions to itself"

# By the package or the module that the class of the client is from; `COMMON` for all others: groq,
# writerai, cerebras, fireworks, ...
SDKS: Final[dict[str, Sdk]] = {
    # (also for what speaks its protocol: OpenRouter, DeepSeek, Ollama, Together, Perplexity, ...)
    "openai": Sdk(("base_url",), ("_azure_endpoint", "_azure_deployment", *QUERIES), HEADERS),
    "anthropic": Sdk(("base_url",), ("aws_region", *QUERIES), HEADERS),
    # Here, the project may become known with the first request only.
    "anthropic.lib.vertex": Sdk(("base_url", "region", "project_id"), QUERIES, HEADERS),
    "anthropic.lib.google_cloud": Sdk(("base_url", "_location", "_project"), QUERIES, HEADERS),
    "botocore": Sdk(("meta.endpoint_url",), ("meta.region_name",)),
    "cohere": Sdk(
        ("_client_wrapper._base_url",),
        headers=("_client_wrapper._headers", "_client_wrapper.httpx_client.httpx_client.headers"),
    ),
    "google.genai": Sdk(
        ("_api_client._http_options.base_url",),
        (
            "_api_client._http_options.api_version",
            "_api_client._http_options.base_url_resource_scope",
            "_api_client._http_options.extra_body",
            "_api_client.vertexai",
            "_api_client.project",
            "_api_client.location",
        ),
        (
            "_api_client._http_options.headers",
            "_api_client._httpx_client.headers",
            "_api_client._async_httpx_client.headers",
        ),
    ),
    "mistralai": Sdk(
        may=("sdk_configuration.server_url", "sdk_configuration.server"),
        headers=("sdk_configuration.client.headers", "sdk_configuration.async_client.headers"),
        more=_server_of,
    ),
    "google.generativeai": Sdk(unseen=MODEL_INSIDE),
    "litellm": Sdk(unseen="chooses among endpoints of its own"),  # (a router)
    "vertexai": Sdk(unseen=MODEL_INSIDE),
    "xai_sdk": Sdk(unseen="does not show what it sends along"),
}
# Its functions ask where the module and the environment say.
LITELLM: Final = Sdk(
    may=("api_base", "api_version", "vertex_project", "vertex_location", "model_alias_map"),
    headers=("headers",),
    more=_environment_of,
)


class Endpoint:
    """Where a client sends its requests, in words, with the headers of it that count.

    An SDK's `base_url` may be set at any time: what tells the endpoint is read at each call, and
    put into words again only where it has changed.
    """

    def __init__(self, named: str | None, sdk_client: Any, create_fn: Callable[..., Any]) -> None:
        """`named`: how somebody has named the endpoint, which then counts instead.

        Where instructor was given a function, its endpoint is told by the client that it is a
        method of, or by its name. Raises `UncacheableRequest` where nothing tells it.
        """
        named = named and address_in_words(named)
        client = _owner_of(create_fn) if sdk_client is None else sdk_client
        self._named = name_of(create_fn) if client is None and named is None else named
        if client is not None:
            self._sdk = _sdk_of(client)
        elif str(self._named).startswith("litellm.") and "litellm" in sys.modules:
            client, self._sdk, self._named = sys.modules["litellm"], LITELLM, named
        else:
            self._sdk = Sdk()
        self._client = client
        self._places = [path for path in self._sdk.must + self._sdk.may if _is_at(path, client)]
        # (what httpx keeps its headers in is compared much faster than they are)
        headers = [
            f"{path}._list" if _is_at(f"{path}._list", client) else path
            for path in self._sdk.headers
            if _is_at(path, client)
        ]
        # (of two and more, it gives a tuple)
        self._read = attrgetter(*self._places, *headers, "__class__", "__class__")
        # What was there the last time, the words for it, and the headers that count.
        self._known: tuple[tuple[Any, ...], str, Headers] = (), "", {}
        self.text()

    def text(self) -> str:
        """For a call that gives no headers of its own."""
        values = self._read(self._client)
        known, text, _ = self._known
        return text if known == values else self._put_into_words(values)

    def text_with(
        self, arguments: Mapping[str, Any], defaults: Mapping[str, Any], exclude: Set[str]
    ) -> str:
        """For a call with these arguments, of which instructor gives `defaults` to each call."""
        alone = self.text()
        on_client = self._known[2]
        headers = counted_of_call(on_client, arguments, defaults, exclude)
        return alone.removesuffix(in_words(on_client)) + in_words(headers)

    def _put_into_words(self, values: tuple[Any, ...]) -> str:
        headers = counted_on_client(values[len(self._places) : -2])
        text = (self._told(values) if self._named is None else self._named) + in_words(headers)
        self._known = tuple(map(_kept, values)), text, headers
        return text

    def _told(self, values: tuple[Any, ...]) -> str:
        sdk, names = self._sdk, map(_name_at, self._places)
        told = dict(zip(names, values, strict=False)) | sdk.more(self._client)
        words = {name: text for name, value in told.items() if (text := address_in_words(value))}
        if not words or sdk.unseen or not words.keys() >= set(map(_name_at, sdk.must)):
            kind = type(self._client).__name__
            why = sdk.unseen and f": it {sdk.unseen}"
            raise UncacheableRequest(
                "endpoint",
                f"where a {kind} sends requests is not known{why}. Name it with "
                "llmcache.wrap(client, endpoint=...)",
                ReasonCode.NO_ENDPOINT,
            )
        return " ".join([f"{name}={text}" for name, text in words.items()])


def _sdk_of(client: Any) -> Sdk:
    for cls in client.__class__.__mro__:
        module = cls.__module__
        while module:
            if sdk := SDKS.get(module):
                return sdk
            module = module.rpartition(".")[0]
    return COMMON


def _owner_of(create_fn: Callable[..., Any]) -> Any:
    """The client that the function is a method of; None for a plain function."""
    owner = getattr(getattr(create_fn, "__wrapped__", create_fn), "__self__", None)
    return owner if owner is None else getattr(owner, "_client", owner)


def _is_at(path: str, client: Any) -> bool:
    try:
        attrgetter(path)(client)
    except AttributeError:
        return False
    return True


def _name_at(path: str) -> str:
    return path.rpartition(".")[2].strip("_")


def _kept(value: Any) -> Any:
    """What to compare with the next time: of what may change in place, a copy."""
    return copy.deepcopy(value) if isinstance(value, MutableMapping | list) else value


def is_litellms(create_fn: Callable[..., Any]) -> bool:
    """Whether instructor wraps a function of LiteLLM, or a method of its router."""
    module = getattr(inspect.unwrap(create_fn), "__module__", None) or ""
    return module.partition(".")[0] == "litellm"


def name_of(create_fn: Callable[..., Any]) -> str:
    """The name of the function that instructor wraps, where there is no SDK's client."""
    function = inspect.unwrap(create_fn)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<>")
    if module is None or "<" in name:
        raise UncacheableRequest(
            "endpoint",
            "the client wraps a function without a name of its own: name where it sends requests "
            "with llmcache.wrap(client, endpoint=...)",
            ReasonCode.NO_ENDPOINT,
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
            ReasonCode.NO_MODEL,
        )
    cells: Any = getattr(create_fn, "__closure__", None)
    model = cells[names.index("default_model")].cell_contents
    return None if model is None else str(model)
