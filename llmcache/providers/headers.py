"""Which HTTP headers choose the answer, and so count in the key.

Of those that a user gave a client all count: somebody has set them for each call. But for those
that carry credentials, ids or traces, or serve the transport and the statistics. Of a call those
count that are known to route it or to switch something on: what nobody knows is an id more often
than not. Names are compared without regard to case (RFC 9110, section 5.1), values exactly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import lru_cache
from typing import Any, Final

from llmcache.conf import settings
from llmcache.exceptions import UncacheableRequest
from llmcache.providers.arguments import is_not_given

Headers = dict[str, str]

# Who asks, and who pays. (Not Portkey's virtual key: it is the name of a provider.)
CREDENTIALS: Final = re.compile(
    r"""auth(orization|entication|enticated)?(-|$) | (^|-)(jwt|secret|signature|credentials?)(-|$)
    | (api|access|account|app|client|function|functions|license|master|posthog|private|secret
      |service|signing|subscription)-?key
    | (^|-)(token|password|passwd|cookie2?)$ | ^cf-access-
    | (^|-)(openai|anthropic)-(organization|project|workspace)(-id)?$ | ^x-goog-user-project$""",
    re.VERBOSE,
)
# Which call it is, of whom, and in which trace. Labels for statistics are of the kind.
IDS: Final = re.compile(
    r"""(^|-)(call|conversation|correlation|customer|end-user|event|idempotency|interaction
      |invocation|job|log|message|operation|parent|req|request|run|session|span|task|thread|trace
      |transaction|turn|user|visitor)-?(u?u?id|guid|key)$
    | (^|-)(baggage|span|telemetry|trace|traceid|traceparent|tracestate|tracing)(-|$)
    | ^b3$ | ^x-b3- | ^(x-)?(datadog|dd|elastic-apm|instana|jaeger|newrelic|ot|sentry|uberctx)(-|$)
    | ^x-request-(start|time)$ | ^(helicone|x-portkey)-(omit|property|session|span|parent)-
    | (^|-)(collect-log|metadata|nonce|timestamp)$ | ^(http-)?referer$ | ^x-(openrouter-)?title$
    | ^x-openrouter-categories$""",
    re.VERBOSE,
)
# What HTTP, the network and the SDKs need for themselves. (Not `Host`: it chooses the server.)
TRANSPORT: Final = re.compile(
    r"""^(accept(-charset|-encoding|-ranges)?|connection|keep-alive|te|trailer|transfer-encoding
      |upgrade|expect|from|via|forwarded|origin|date|x-(amz-|ms-)?date|pragma|cache-control|priority
      |range|dnt|x-real-ip|x-client-ip|true-client-ip|cf-connecting-ip|x-requested-with
      |x-client-(name|version|info)|x-goog-api-client)$
    | ^(content|proxy|if|sec|x-forwarded|x-stainless|x-fern)- | (^|-)user-agent$
    | (^|-)(timeout|retry|retries|backoff|max-attempts)(-|$)""",
    re.VERBOSE,
)
# Those of a call that route it, or switch something on.
OF_CALLS: Final = re.compile(
    r"""(^|-)(beta|deployment|guardrail|model|override|provider|route|routing|target|upstream)s?
      (-|$|identifier|version)
    | (^|-)(anthropic|api|openai)-version$ | ^host$ | ^extra-parameters$
    | ^cf-aig-(?!cache|skip-cache|custom-cost) | ^x-(litellm|portkey|amzn-bedrock|vertex-ai)-
    | ^helicone-(fallback|llm|moderation|openai|prompt|token)""",
    re.VERBOSE,
)
# These say nothing that is secret: they may be shown. Of all others, only a digest is kept.
IN_CLEAR: Final = {"anthropic-beta", "anthropic-version", "openai-beta"}
HEADERS_IN_WORDS: Final = " headers="

# The arguments of a call in which SDKs take headers, and where in them; what comes later wins.
ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "headers": (),  # LiteLLM
    "extra_headers": (),  # LiteLLM, openai, anthropic, groq, writer, cerebras, ...
    "http_headers": (),  # mistralai
    "request_options": ("additional_headers",),  # cohere
    "config": ("http_options", "headers"),  # google-genai
}
QUERY: Final = "extra_query"
HOLDERS: Final = frozenset({name for name, path in ARGUMENTS.items() if path}) | {QUERY}
# Names in a query that stand for a credential, as the names of some headers do.
KEYS_IN_QUERIES: Final = {"code", "key", "sig"}
# What else those hold that cannot change the answer.
OPTIONS_OF_TRANSPORT: Final = {
    *("additional_headers", "chunk_size", "max_retries", "retry_remote_protocol_errors"),
    *("timeout", "timeout_in_seconds"),
    *("headers", "retry_options", "client_args", "async_client_args"),
    *("httpx_client", "httpx_async_client", "aiohttp_client"),
}


def counted_on_client(places: Iterable[Any]) -> Headers:
    """Those that count of the headers in these places of an SDK's client."""
    return _counted({}, [(headers, True) for headers in places if headers])


def counts_on_client(name: str) -> bool:
    """Whether a header of that name, in lower case, counts where `KEY_HEADERS` does not name it."""
    return _counts(name, True)


def is_credential(name: str) -> bool:
    """Whether a header, or a field, with this name says who asks, or with which right."""
    return CREDENTIALS.search(name.lower().replace("_", "-")) is not None


def counted_of_call(
    on_client: Headers, arguments: Mapping[str, Any], defaults: Mapping[str, Any], exclude: Set[str]
) -> Headers:
    """Those that count of a call: the client's, and what the call adds, changes and takes away.

    `defaults` are the arguments that instructor gives each call of the client: what is in them was
    set for all calls. Those named in `exclude` do not count.
    """
    given = [
        (_inside(arguments[name], path), name in defaults and defaults[name] == arguments[name])
        for name, path in ARGUMENTS.items()
        if name in arguments and name not in exclude
    ]
    return _counted(on_client, given)


def in_words(headers: Headers) -> str:
    """As they may be kept and shown: no values that may be secret."""
    if not headers:
        return ""
    shown = {
        name: value if name in IN_CLEAR else short_digest(value)
        for name, value in sorted(headers.items())
    }
    return f"{HEADERS_IN_WORDS}{shown}"


def short_digest(value: Any) -> str:
    return hashlib.sha256(str(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def without_credentials(query: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in query.items()
        if name not in KEYS_IN_QUERIES and not is_credential(name)
    }


def without_headers(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments without headers, credentials and options of transport inside of others."""
    stripped = {
        name: _stripped(arguments[name], path[0] if path[1:] else "")
        for name, path in ARGUMENTS.items()
        if path and name in arguments
    }
    if isinstance(query := arguments.get(QUERY), Mapping):
        stripped[QUERY] = without_credentials(query)
    return {**arguments, **stripped}


def _stripped(value: Any, name: str) -> Any:
    """`value`, or what it holds under `name`, without what serves the transport."""
    options = _inside(value, (name,)) if name else value
    if hasattr(options, "model_dump"):
        options = options.model_dump(exclude_none=True)
    if not isinstance(options, Mapping):
        return value
    kept = {key: item for key, item in options.items() if key not in OPTIONS_OF_TRANSPORT}
    if not name:
        return kept
    is_model = hasattr(value, "model_copy")
    return value.model_copy(update={name: kept}) if is_model else {**value, name: kept}


def _counted(before: Headers, given: Iterable[tuple[Any, bool]]) -> Headers:
    counted, named = dict(before), settings.key_headers
    for headers, is_of_client in given:
        for name, value in _by_name(headers).items():
            if value is None:
                counted.pop(name, None)
            elif name in counted or name in named or _counts(name, is_of_client):
                counted[name] = value
    return counted


@lru_cache(maxsize=1000)
def _counts(name: str, is_of_client: bool) -> bool:
    plain = name.replace("_", "-")
    if any(pattern.search(plain) for pattern in (CREDENTIALS, IDS, TRANSPORT)):
        return False
    return is_of_client or OF_CALLS.search(plain) is not None


def _by_name(headers: Any) -> dict[str, str | None]:
    """The headers by their names in lower case; None for one that the SDK is told to leave out."""
    by_name: dict[str, str | None] = {}
    for key, value in _pairs(headers):
        name = _text(key).lower()
        if value is None or is_not_given(value):
            by_name[name] = None
        elif (other := by_name.get(name)) is not None:
            by_name[name] = f"{other}, {_text(value)}"  # (of two spellings both are sent)
        else:
            by_name[name] = _text(value)
    return by_name


def _pairs(headers: Any) -> Iterator[tuple[Any, Any]]:
    if headers is None or is_not_given(headers):
        return iter(())
    if hasattr(headers, "items"):
        return iter(headers.items())
    if isinstance(headers, list | tuple):  # of pairs, and httpx keeps triples
        return ((item[0], item[-1]) for item in headers)
    raise UncacheableRequest("headers", f"a {type(headers).__name__} holds no headers")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _inside(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    return value
