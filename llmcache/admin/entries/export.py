"""An entry to take away: as JSON, and as the call that would ask for it."""

from __future__ import annotations

import ast
import re
from keyword import iskeyword
from pprint import pformat
from textwrap import indent
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse

from llmcache.admin.base import EntriesAdmin, EntryPage
from llmcache.admin.entries.texts import parse
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, REQUEST, unseal
from llmcache.exceptions import CorruptEntry
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
    facts = {name: getattr(entry, name) for name in COLUMNS}
    tags = sorted(entry.tags.values_list("tag", flat=True))
    request, answer, unreadable = None, StoredAnswer(b"null"), {}
    try:
        request = request_of(entry)
    except CorruptEntry as error:
        unreadable["request"] = str(error)
    try:
        answer = StoredAnswer.unpack(unseal(ANSWER, entry.key, bytes(entry.payload)).body)
    except CorruptEntry as error:
        unreadable["answer"] = str(error)
    return facts | {
        "tags": tags,
        "request": request,
        "answer": parse(answer.answer),
        "completion": _dumped(answer.completion),
        "usage": _dumped(answer.total_usage),
        "unreadable": unreadable,
    }


def request_of(entry: CacheEntry) -> Any:
    """The stored request; None when there is none. Raises `CorruptEntry`."""
    if entry.request is None:
        return None
    return parse(unseal(REQUEST, entry.key, bytes(entry.request)).body)


def python_call(entry: CacheEntry) -> str | None:
    """The call that `entry` answers, as Python; None when its request is not stored as it was.

    It asks where the environment says, as the SDKs read it. What JSON cannot say, such as a tuple
    in the context, is not in it; then it has another key.
    """
    try:
        request = request_of(entry)
    except CorruptEntry:
        return None
    if not isinstance(request, dict) or not isinstance(request.get("parameters"), dict):
        return None
    if not _is_name_of_type(entry.model if entry.provider == "python" else entry.response_model):
        return None  # nothing of a row is written as code that whoever pastes it would run
    if entry.provider == "python":
        return _function_call(entry, request["parameters"])
    return _client_call(entry, request)


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
    shown = [
        f"{name}={pformat(value, width=88, sort_dicts=False)},"
        for name, value in values.items()
        if _is_argument(name)
    ]
    if others := {name: value for name, value in values.items() if not _is_argument(name)}:
        shown.append(f"**{pformat(others, width=88, sort_dicts=False)},")
    return indent("".join(f"{argument}\n" for argument in shown), "    ")


def _is_argument(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name)


def _dumped(dumped: Dumped | None) -> Any:
    return None if dumped is None else parse(dumped.data)


PAGES: Final = (EntryPage("export", download, ("content", "export"), methods=("GET",)),)
