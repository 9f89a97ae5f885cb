"""From a request on the wire to its reply, as the provider would put it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from project.standin import chat_completions, messages, responses
from project.standin.answers import Answer, Behaviour, answer
from project.standin.questions import Body, Question, Rejection

MODELS_PATH = "/v1/models"
ANTHROPIC_PATH = "/v1/messages"


class Dialect(Protocol):
    """What the module of a protocol offers."""

    def question(self, body: Body) -> Question: ...
    def complete(self, body: Body, answer: Answer) -> Body: ...
    def stream(self, body: Body, answer: Answer) -> Iterator[str]: ...


DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": chat_completions,
    "/v1/responses": responses,
    ANTHROPIC_PATH: messages,
}


@dataclass(frozen=True)
class Reply:
    """What goes back over the wire: one JSON object, or a stream of events."""

    status: int
    body: Body | Iterator[str]


def reply(method: str, path: str, body: Body | None, behaviour: Behaviour) -> Reply:
    """Answer one request as the provider would, errors included."""
    try:
        return Reply(200, _route(method, path, body, behaviour))
    except Rejection as rejection:
        return failure(path, rejection.status, rejection.message, rejection.param, rejection.code)


def failure(
    path: str, status: int, message: str, param: str | None = None, code: str | None = None
) -> Reply:
    """An error in the words of the provider whose path was asked."""
    if path.startswith(ANTHROPIC_PATH):
        error = {"type": _ANTHROPIC_ERRORS.get(status, "api_error"), "message": message}
        return Reply(status, {"type": "error", "error": error})
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if status == 429 else kind
    details = {"message": message, "type": kind, "param": param, "code": code}
    return Reply(status, {"error": details})


_ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _route(method: str, path: str, body: Body | None, behaviour: Behaviour) -> Body | Iterator[str]:
    if (method, path) == ("GET", MODELS_PATH):
        return _models()
    dialect = DIALECTS.get(path)
    if dialect is None:
        raise Rejection(f"Unknown request URL: {method} {path}.", status=404, code="unknown_url")
    if method != "POST":
        raise Rejection(f"Not allowed to {method} on {path} (use POST).", status=405)
    if body is None:
        raise Rejection("We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str):
        raise Rejection("You must provide a model parameter.", "model")
    said = answer(dialect.question(body), behaviour)
    return dialect.stream(body, said) if body.get("stream") else dialect.complete(body, said)


def _models() -> Body:
    model = {"id": "stand-in", "object": "model", "created": 0, "owned_by": "llmcache"}
    return {"object": "list", "data": [model]}
