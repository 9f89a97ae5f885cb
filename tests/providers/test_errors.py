"""Which errors are the provider's: real ones of SDKs over HTTP, and those of other libraries."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import aiohttp
import anthropic
import httpx2
import instructor
import openai
import pytest
import requests
import tenacity
import urllib3
from django.core.exceptions import ValidationError as DjangoValidationError
from pydantic import BaseModel, TypeAdapter
from pydantic import ValidationError as PydanticValidationError

from llmcache.providers.errors import is_the_providers
from project.standin.server import StandIn

MESSAGES: Any = [{"role": "user", "content": "The printer is on fire."}]
CLOSE = {"Connection": "close"}

THEIRS = [408, 429, 500, 502, 503, 504, 520, 529]
OURS = [400, 401, 403, 404, 405, 409, 413, 422]


class Ticket(BaseModel):
    title: str


def ask_openai(root: str, **options: Any) -> Any:
    with openai.OpenAI(**_options(f"{root}/v1", options)) as sdk:
        return sdk.chat.completions.create(model="m", messages=MESSAGES)


def ask_anthropic(root: str, **options: Any) -> Any:
    with anthropic.Anthropic(**_options(root, options)) as sdk:
        return sdk.messages.create(model="m", messages=MESSAGES, max_tokens=9)


def ask_openai_through_instructor(root: str, **options: Any) -> Any:
    with openai.OpenAI(**_options(f"{root}/v1", options)) as sdk:
        client: Any = instructor.from_openai(sdk)
        return client.create(response_model=Ticket, model="m", messages=MESSAGES)


def ask_anthropic_through_instructor(root: str, **options: Any) -> Any:
    with anthropic.Anthropic(**_options(root, options)) as sdk:
        client: Any = instructor.from_anthropic(sdk)
        return client.create(response_model=Ticket, model="m", messages=MESSAGES, max_tokens=9)


def ask_asynchronously(root: str, **options: Any) -> Any:
    async def ask() -> Any:
        async with openai.AsyncOpenAI(**_options(f"{root}/v1", options)) as sdk:
            client: Any = instructor.from_openai(sdk)
            return await client.create(response_model=Ticket, model="m", messages=MESSAGES)

    return asyncio.run(ask())


def read_stream_of_openai(root: str, **options: Any) -> Any:
    with openai.OpenAI(**_options(f"{root}/v1", options)) as sdk:
        return list(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def read_stream_of_anthropic(root: str, **options: Any) -> Any:
    with anthropic.Anthropic(**_options(root, options)) as sdk:
        return list(sdk.messages.create(model="m", messages=MESSAGES, max_tokens=9, stream=True))


def ask_with_requests(root: str, **options: Any) -> Any:
    response = requests.post(
        f"{root}/v1/chat/completions", json={}, headers=CLOSE, timeout=options.get("timeout", 9)
    )
    with closing(response):
        response.raise_for_status()


def ask_with_httpx(root: str, **options: Any) -> Any:
    with httpx2.Client(headers=CLOSE, timeout=options.get("timeout", 9)) as client:
        client.post(f"{root}/v1/chat/completions", json={}).raise_for_status()


def ask_with_aiohttp(root: str, **options: Any) -> Any:
    async def ask() -> None:
        timeout = aiohttp.ClientTimeout(options.get("timeout", 9))
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=CLOSE) as session,
            session.post(f"{root}/v1/chat/completions", json={}) as response,
        ):
            response.raise_for_status()

    asyncio.run(ask())


def ask_with_urllib(root: str, **options: Any) -> Any:
    request = urllib.request.Request(f"{root}/v1/chat/completions", b"{}", CLOSE)
    try:
        with urllib.request.urlopen(request, timeout=options.get("timeout", 9)):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _options(base_url: str, options: dict[str, Any]) -> Any:
    common = {"api_key": "k", "default_headers": CLOSE, "max_retries": 0}
    return {"base_url": base_url, **common, **options}


SDKS = [
    ask_openai,
    ask_anthropic,
    ask_openai_through_instructor,
    ask_anthropic_through_instructor,
    ask_asynchronously,
    read_stream_of_openai,
    read_stream_of_anthropic,
]
LIBRARIES = [ask_with_requests, ask_with_httpx, ask_with_aiohttp, ask_with_urllib]

Ask = Callable[..., Any]


def error_of(ask: Ask, *args: Any, **kwargs: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is being told
        ask(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize("ask", SDKS + LIBRARIES)
class TestOverHTTP:
    @pytest.mark.parametrize("status", [429, 503])
    def test_is_theirs(self, model: StandIn, ask: Ask, status: int) -> None:
        model.fail_with = status
        assert is_the_providers(error_of(ask, model.root))

    def test_is_ours(self, model: StandIn, ask: Ask) -> None:
        model.fail_with = 400
        assert not is_the_providers(error_of(ask, model.root))

    def test_a_timeout_is_theirs(self, model: StandIn, ask: Ask) -> None:
        model.latency = 5
        assert is_the_providers(error_of(ask, model.root, timeout=0.2))

    def test_no_connection_is_theirs(self, ask: Ask) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            root = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            assert is_the_providers(error_of(ask, root))

    def test_a_hang_up_is_theirs(self, ask: Ask, hanging_up: str) -> None:
        assert is_the_providers(error_of(ask, hanging_up))


@pytest.fixture
def hanging_up() -> Iterator[str]:
    """The address of a server that hangs up on every request."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Rude(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Rude) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ask", [read_stream_of_openai, read_stream_of_anthropic])
def test_a_stream_that_breaks_is_theirs(model: StandIn, ask: Ask) -> None:
    model.hang_up_after = 1
    assert is_the_providers(error_of(ask, model.root))


def test_answers_that_do_not_validate_are_not_theirs(model: StandIn) -> None:
    model.behaviour.answer_with = {"title": None}
    for ask in (ask_openai_through_instructor, ask_anthropic_through_instructor):
        error = error_of(ask, model.root)
        assert type(error).__name__ == "InstructorRetryException"
        assert not is_the_providers(error)


def test_a_failure_after_an_answer_that_did_not_validate_is_theirs(model: StandIn) -> None:
    model.behaviour.answer_with = {"title": None}

    def fail(*_: Any, **__: Any) -> None:
        model.fail_with = 503

    with openai.OpenAI(**_options(f"{model.root}/v1", {})) as sdk:
        client: Any = instructor.from_openai(sdk)
        client.on("parse:error", fail)
        call = {"response_model": Ticket, "model": "m", "messages": MESSAGES, "max_retries": 2}
        error = error_of(client.create, **call)
    assert len(model.calls) == 2
    assert is_the_providers(error)


def test_retries_of_another_kind_are_looked_through(model: StandIn) -> None:
    retrying = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))
    for status, theirs in ((503, True), (400, False)):
        model.fail_with = status
        error = error_of(retrying, ask_openai, model.root)
        assert isinstance(error, tenacity.RetryError)
        assert is_the_providers(error) is theirs


def stream_error(body: Any) -> Exception:
    request = httpx2.Request("POST", "http://localhost")
    return openai.APIError("An error occurred during streaming", request, body=body)


def anthropic_stream_error(kind: str) -> Exception:
    response = httpx2.Response(200, request=httpx2.Request("POST", "http://localhost"))
    body = {"type": "error", "error": {"type": kind, "message": "x"}}
    return anthropic.APIStatusError("x", response=response, body=body)


class GoogleAPIError(Exception):
    """As google.api_core has them: the code is of the class."""

    code: Any = None


class BotoError(Exception):
    """As botocore has them: `response` is a dictionary."""

    def __init__(self, response: Any) -> None:
        self.response = response


class Unreadable(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("no")


def made(name: str, *, base: Any = Exception, **attributes: Any) -> Exception:
    """An exception of a class with this name, of a library that is not installed here."""
    error: Exception = type(name, (base,), attributes)("x")
    return error


def answered(status: Any) -> dict[str, Any]:
    return {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}


def validation_error() -> Exception:
    return error_of(TypeAdapter(int).validate_python, "x")


OF_THE_PROVIDER: dict[str, Exception] = {
    "ConnectionResetError": ConnectionResetError(),
    "BrokenPipeError": BrokenPipeError(),
    "TimeoutError": TimeoutError(),
    "asyncio.TimeoutError": asyncio.TimeoutError(),  # noqa: UP041 - what a user may write
    "gaierror": socket.gaierror(-2, "Name or service not known"),
    "SSLError": ssl.SSLError("x"),
    "RemoteDisconnected": http.client.RemoteDisconnected("x"),
    "IncompleteRead": http.client.IncompleteRead(b""),
    "urllib3 ReadTimeoutError": urllib3.exceptions.ReadTimeoutError(None, "", "x"),  # type: ignore[arg-type]
    "requests.ReadTimeout": requests.ReadTimeout(),
    "requests.ChunkedEncodingError": requests.exceptions.ChunkedEncodingError(),
    "httpx.PoolTimeout": httpx2.PoolTimeout("x"),
    "httpx.ReadError": httpx2.ReadError("x"),
    "google ServiceUnavailable": made(
        "ServiceUnavailable", base=GoogleAPIError, code=HTTPStatus.SERVICE_UNAVAILABLE
    ),
    "google-genai ServerError": made("ServerError", code=500, status="INTERNAL"),
    "botocore ThrottlingException": BotoError(answered(429)),
    "botocore EndpointConnectionError": made(
        "EndpointConnectionError", base=type("ConnectionError", (Exception,), {})
    ),
    "botocore ReadTimeoutError": made(
        "ReadTimeoutError", base=type("HTTPClientError", (Exception,), {})
    ),
    "litellm.Timeout": made("Timeout", status_code=408),
    "cohere ServiceUnavailableError": made("ServiceUnavailableError", status_code=503),
    "the status of a response": made("HTTPStatusError", response=SimpleNamespace(status_code=502)),
    "an error event of OpenAI": stream_error({"type": "server_error", "code": None}),
    "a limit in the stream of OpenAI": stream_error({"code": "rate_limit_exceeded"}),
    "an overloaded Anthropic": anthropic_stream_error("overloaded_error"),
}

NOT_OF_THE_PROVIDER: dict[str, BaseException] = {
    "ValueError": ValueError("503"),
    "KeyError": KeyError(503),
    "FileNotFoundError": FileNotFoundError(),
    "ZeroDivisionError": ZeroDivisionError(),
    "pydantic": validation_error(),
    "Django": DjangoValidationError("x", code="500"),
    "JSON": error_of(json.loads, "<html>"),
    "CancelledError": asyncio.CancelledError(),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "SystemExit with a status": SystemExit(503),
    "GeneratorExit": GeneratorExit(),
    "google NotFound": made("NotFound", base=GoogleAPIError, code=HTTPStatus.NOT_FOUND),
    "botocore ValidationException": BotoError(answered(400)),
    "litellm.BadRequestError": made("BadRequestError", status_code=400),
    "a status that is none": made("Odd", status_code="503"),
    "a status of success": made("Odd", status_code=200),
    "a method named code": made("RpcError", code=lambda self: 503),
    "an unreadable status": Unreadable(),
    "a broken response": BotoError({"ResponseMetadata": None}),
    "a bad request in the stream of OpenAI": stream_error({"type": "invalid_request_error"}),
    "an odd event of OpenAI": stream_error("x"),
    "an odder event of OpenAI": stream_error({"error": ["x"]}),
    "a bad request in the stream of Anthropic": anthropic_stream_error("invalid_request_error"),
}


@pytest.mark.parametrize("name", OF_THE_PROVIDER)
def test_is_of_the_provider(name: str) -> None:
    assert is_the_providers(OF_THE_PROVIDER[name])


@pytest.mark.parametrize("name", NOT_OF_THE_PROVIDER)
def test_is_not_of_the_provider(name: str) -> None:
    assert not is_the_providers(NOT_OF_THE_PROVIDER[name])


@pytest.mark.parametrize("attribute", ["status_code", "status", "http_status", "code"])
def test_the_status_decides(attribute: str) -> None:
    theirs = [
        status for status in THEIRS + OURS if is_the_providers(made("X", **{attribute: status}))
    ]
    assert theirs == THEIRS


class AppError(Exception):
    """A user's own, around those of libraries."""


def wrapped(inner: BaseException, *, explicitly: bool, hidden: bool = False) -> Exception:
    try:
        try:
            raise inner
        except BaseException as error:
            if hidden:
                raise AppError from None
            if explicitly:
                raise AppError from error
            raise AppError  # noqa: B904 - as users do
    except AppError as outer:
        return outer


class TestWrappers:
    @pytest.mark.parametrize("explicitly", [True, False])
    def test_are_looked_through(self, explicitly: bool) -> None:
        theirs = wrapped(TimeoutError(), explicitly=explicitly)
        assert is_the_providers(wrapped(theirs, explicitly=explicitly))
        ours = wrapped(ValueError(), explicitly=explicitly)
        assert not is_the_providers(wrapped(ours, explicitly=explicitly))

    def test_what_is_hidden_does_not_count(self) -> None:
        assert not is_the_providers(wrapped(TimeoutError(), explicitly=False, hidden=True))

    def test_the_first_that_tells_decides(self) -> None:
        answer = validation_error()
        answer.__context__ = TimeoutError()
        assert not is_the_providers(answer)
        refused = made("BadRequestError", status_code=400)
        refused.__cause__ = ConnectionError()
        assert not is_the_providers(refused)
        down = made("ServiceUnavailable", status_code=503)
        down.__cause__ = refused
        assert is_the_providers(down)

    def test_a_cancellation_behind_an_error_is_no_failure(self) -> None:
        assert not is_the_providers(wrapped(asyncio.CancelledError(), explicitly=True))

    def test_a_circle_ends(self) -> None:
        first, second = AppError(), AppError()
        first.__cause__, second.__cause__ = second, first
        assert not is_the_providers(first)

    def test_of_a_group_all_have_to_be(self) -> None:
        assert is_the_providers(ExceptionGroup("x", [TimeoutError(), ConnectionError()]))
        assert not is_the_providers(ExceptionGroup("x", [TimeoutError(), ValueError()]))

    def test_attempts_of_instructor_tell_where_nothing_else_does(self) -> None:
        attempts = [SimpleNamespace(exception=ValueError()), SimpleNamespace(exception=OSError())]
        for last, theirs in ((TimeoutError(), True), (validation_error(), False)):
            error = made("InstructorRetryException", failed_attempts=None)
            error.failed_attempts = [*attempts, SimpleNamespace(exception=last)]  # type: ignore[attr-defined]
            assert is_the_providers(error) is theirs


def test_pydantic_has_the_name_that_is_looked_for() -> None:
    assert PydanticValidationError.__name__ == "ValidationError"
