"""Whether a call failed because of the provider, so that a stale answer will do.

The exceptions of SDKs and HTTP libraries are known by their attributes and the names of their
classes: none of these libraries has to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Besides 5xx: request timeout, too many requests.
STATUSES: Final = frozenset({408, 429})
# Where an exception, or the response that it holds, keeps the HTTP status.
STATUS_ATTRIBUTES: Final = ("status_code", "status", "http_status", "code")

# No connection, or none that lasted: by the names of classes, looked for in the whole MRO.
CONNECTION_ERRORS: Final = frozenset(
    {
        *(
            "ConnectionError",
            "TimeoutError",
            "gaierror",
            "SSLError",
        ),  # Python, and who extends them
        "APIConnectionError",  # openai, anthropic, groq, litellm; so does their APITimeoutError
        *("TimeoutException", "NetworkError", "ProxyError", "RemoteProtocolError"),  # httpx
        *("Timeout", "ChunkedEncodingError"),  # requests; the first is litellm's, too
        "HTTPClientError",  # botocore
        *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
        "IncompleteRead",  # http.client
        *("MaxRetryError", "NewConnectionError", "ProtocolError"),  # urllib3
    }
)
# The model has answered, and what it said was not good enough.
ANSWER_ERRORS: Final = frozenset(
    {
        *("ValidationError", "JSONDecodeError"),  # pydantic, json
        *("AsyncValidationError", "ResponseParsingError"),  # instructor, and the next two
        *("IncompleteOutputException", "TokenBudgetError"),
    }
)
# What the error events of a stream, which began with status 200, call the trouble of a provider.
TROUBLE_IN_STREAMS: Final = frozenset(
    {
        *("api_error", "overloaded_error", "rate_limit_error", "timeout_error"),  # anthropic
        *("rate_limit_exceeded", "server_error"),  # openai
    }
)


def is_the_providers(error: BaseException) -> bool:
    """Whether the provider failed, or could not be reached: the case for `stale-if-error`.

    Status 429, 408 and 5xx, timeouts and connection errors are (RFC 5861, section 4, names 5xx
    and no connection). Other 4xx are of the caller's making; what is no `Exception`, such as a
    cancellation, is nobody's failure.

    Wrappers are looked through: the first exception that tells decides, from the one that was
    raised to those that it was raised from, or while handling.
    """
    seen: set[int] = set()
    behind: Any = error
    while isinstance(behind, Exception) and id(behind) not in seen:
        seen.add(id(behind))
        if isinstance(behind, ExceptionGroup):
            return all(map(is_the_providers, behind.exceptions))
        verdict = _verdict(behind)
        if verdict is not None:
            return verdict
        behind = _behind(behind)
    return False


def _verdict(error: Exception) -> bool | None:
    """What this exception alone tells; None: nothing."""
    status = _status(error)
    if status is not None:
        return status in STATUSES or status >= 500
    names = {each.__name__ for each in type(error).__mro__}
    if names & ANSWER_ERRORS:
        return False
    return True if names & CONNECTION_ERRORS or _reported(error) & TROUBLE_IN_STREAMS else None


def _status(error: Exception) -> int | None:
    """The HTTP status that says that a request failed; None where there is none."""
    response = _attribute(error, "response")
    found = [_attribute(at, name) for at in (error, response) for name in STATUS_ATTRIBUTES]
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        found.append(metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None)
    return next((int(n) for n in found if isinstance(n, int) and 400 <= n <= 599), None)


def _reported(error: Exception) -> set[Any]:
    """By which names the body of an error event calls what happened."""
    body = _attribute(error, "body")
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(inner, Mapping):
        return set()
    return {name for name in (inner.get("type"), inner.get("code")) if isinstance(name, str)}


def _behind(error: Exception) -> BaseException | None:
    """What `error` was raised from, or while handling."""
    if error.__cause__ is not None:
        return error.__cause__
    if error.__context__ is not None and not error.__suppress_context__:
        return error.__context__
    # instructor, where it has given up after several attempts.
    attempts = _attribute(error, "failed_attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    exception = _attribute(last, "exception")
    return exception if isinstance(exception, BaseException) else None


def _attribute(of: Any, name: str) -> Any:
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody's; law A
        return None
