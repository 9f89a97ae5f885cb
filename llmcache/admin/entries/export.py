"""An entry to take away: as JSON, as the call that would ask for it, and its images."""

from __future__ import annotations

import ast
import re
from keyword import iskeyword
from pprint import pformat
from textwrap import indent
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse

from llmcache.admin.base import EntriesAdmin
from llmcache.admin.entries.content import (
    CLOSED,
    Question,
    open_answer,
    open_request,
    read_question,
)
from llmcache.admin.entries.texts import parse
from llmcache.codec.answers import StoredAnswer
from llmcache.flow.replay import HTTP, body_of
from llmcache.keys.request import SAMPLE
from llmcache.models import CacheEntry

# The columns as they are; what is sealed is opened instead.
COLUMNS: Final = (
    *("key", "namespace", "provider", "endpoint", "model", "mode", "response_model", "digests"),
    *("size", "input_tokens", "output_tokens", "cost", "latency", "created_at", "expires_at"),
    *("stale_until", "pinned", "hits", "last_hit_at"),
)

# A dotted name, and the modules that it begins with.
DOTTED: Final = re.compile(r"(?<![\w.'\"])((?:[a-z_]\w*\.)+)\w+")
# What an expression is made of that names types, and calls nothing.
NAMING: Final = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant),
    *(ast.BinOp, ast.BitOr, ast.UnaryOp, ast.USub, ast.Load),
)


def download(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    response = JsonResponse(exported(entry), json_dumps_params={"indent": 2, "ensure_ascii": False})
    response["Content-Disposition"] = f'attachment; filename="llmcache-{entry}.json"'
    return response


def exported(entry: CacheEntry) -> dict[str, Any]:
    """All that is known of an entry. What cannot be opened is None, and ``unreadable`` says why."""
    request, answer, unreadable = None, StoredAnswer(b"null"), {}
    try:
        request = open_request(entry)
    except CLOSED as error:
        unreadable["request"] = str(error)
    try:
        answer = open_answer(entry.key, entry.payload)
    except CLOSED as error:
        unreadable["answer"] = str(error)
    return {name: getattr(entry, name) for name in COLUMNS} | {
        "tags": sorted(entry.tags.values_list("tag", flat=True)),
        "request": request,
        "answer": parse(answer.answer),
        "completion": answer.completion and parse(answer.completion.data),
        "usage": answer.total_usage and parse(answer.total_usage.data),
        "unreadable": unreadable,
    }


def show_image(
    admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry, number: int
) -> HttpResponse:
    """An image of the conversation, at an address of its own.

    A strict Content-Security-Policy lets a page show no image that is written in the page. Here
    they come from the site itself, to those who may read the conversation.
    """
    question = read_question(entry)
    image = question.image(number) if isinstance(question, Question) else None
    if image is None:
        raise Http404
    response = HttpResponse(image.content, content_type=image.media_type)
    # Whatever else the bytes may be: it is an image, and nothing in it runs.
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Cache-Control"] = "private, max-age=3600"
    return response


def python_call(entry: CacheEntry) -> str | None:
    """The call that `entry` answers, as Python; None when its request is not stored as it was.

    It asks where the environment says, as the SDKs read it. What JSON cannot say, such as a tuple
    in the context, is not in it; then it has another key.
    """
    try:
        request = open_request(entry)
    except CLOSED:
        return None
    if not isinstance(request, dict) or not isinstance(request.get("parameters"), dict):
        return None
    if not _is_name_of_type(entry.model if entry.provider == "python" else entry.response_model):
        return None  # nothing of a row is written as code that whoever pastes it would run
    if entry.provider == "python":
        return _function_call(entry, request["parameters"])
    return (_post if entry.mode == HTTP else _client_call)(entry, request)


def _is_name_of_type(written: str) -> bool:
    """Whether it only names: ``shop.Ticket``, ``list[int]``, ``Literal['a']``; or is empty."""
    try:
        tree = ast.parse(written or "None", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(isinstance(node, NAMING) for node in ast.walk(tree)) and "\n" not in written


def _function_call(entry: CacheEntry, parameters: dict[str, Any]) -> str:
    arguments = {name: value for name, value in parameters.items() if name != SAMPLE}
    call = f"{entry.model}(\n{_arguments(arguments)})\n"
    if SAMPLE not in parameters:
        return f"{_imports(entry.model)}\n{call}"
    block = f"with llmcache.override(sample={parameters[SAMPLE]!r}):\n{indent(call, '    ')}"
    return f"{_imports(entry.model)}import llmcache\n\n{block}"


def _post(entry: CacheEntry, request: dict[str, Any]) -> str:
    """Without credentials, and without headers that count: a row has neither."""
    address = re.split(r"\?\{| headers=", entry.endpoint)[0]
    body = {"model": entry.model, **body_of(request)} if entry.model else body_of(request)
    return (
        f"import httpx\nimport llmcache\n\n"
        f"client = llmcache.wrap(httpx.Client(), namespace={entry.namespace!r})\n"
        f"response = client.post(\n"
        f"    {address!r},\n"
        f'    headers={{"Authorization": "Bearer ..."}},\n'
        f"{_arguments({'json': body})})\n"
    )


def _client_call(entry: CacheEntry, request: dict[str, Any]) -> str:
    parameters = dict(request["parameters"])
    method, model = _method(entry.response_model, streams=bool(parameters.pop("stream", False)))
    given = {name: request[name] for name in ("context", "strict") if request.get(name) is not None}
    arguments = _arguments({"messages": request.get("messages"), **given, **parameters})
    return (
        f"{_imports(model)}import instructor\nimport llmcache\n\n"
        f"client = llmcache.from_provider(\n"
        f"    {f'{entry.provider}/{entry.model}'!r},\n"
        f"    mode=instructor.Mode({entry.mode!r}),\n"
        f"    namespace={entry.namespace!r},\n)\n"
        f"answer = client.{method}(\n    response_model={model},\n{arguments})\n"
    )


def _method(response_model: str, *, streams: bool) -> tuple[str, str]:
    """How the call was made, and its response model."""
    path = response_model.replace("builtins.", "") or "None"
    if not streams:
        return "create", path
    container, bracket, inner = path.partition("[")
    return (
        ("create_iterable", inner.removesuffix("]")) if bracket else ("create_partial", container)
    )


def _imports(expression: str) -> str:
    """The modules that the dotted names in `expression` are in: their parts in lower case."""
    modules = {match[1].removesuffix(".") for match in DOTTED.finditer(expression)}
    return "".join(f"import {module}\n" for module in sorted(modules))


def _arguments(values: dict[str, Any]) -> str:
    """Keyword arguments, one below the other."""
    named, others = [], {}
    for name, value in values.items():
        if name.isidentifier() and not iskeyword(name):
            named.append(f"{name}={_written(value)},\n")
        else:
            others[name] = value
    more = f"**{_written(others)},\n" if others else ""
    return indent("".join(named) + more, "    ")


def _written(value: Any) -> str:
    return pformat(value, width=88, sort_dicts=False)
