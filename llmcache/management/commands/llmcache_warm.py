"""``manage.py llmcache_warm``: answer a file of requests, so that the next to ask finds them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.utils.module_loading import import_string

from llmcache.client.many.answering import CONCURRENCY, create_many
from llmcache.client.many.batch import Result
from llmcache.client.wrapping import from_provider, mode_named
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.explanation.diff import printable
from llmcache.management.base import LLMCacheCommand, counted
from llmcache.outcomes import Outcome
from llmcache.policy import UNSET, Policy, overridden, override

STDIN: Final = "-"
# Arguments of a call that are options of the command, for all lines.
FOR_ALL: Final = {"response_model": "--response-model", "model": "--model"}


class Command(LLMCacheCommand):
    help = (
        "Answers many requests from the store, else from the model, and stores the answers. The "
        "requests are JSON lines: the arguments of one call each, such as messages, temperature "
        "and cache_ttl. Nothing is asked before all lines are read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("file", metavar="FILE", help=f"The requests; {STDIN} reads standard input.")
        add("--model", required=True, help="Provider and model, as for from_provider.")
        add(
            "--response-model",
            required=True,
            metavar="PATH",
            help="The dotted path of the class of the answers.",
        )
        add("--mode", help="The mode of instructor, as in TOOLS (default: the provider's).")
        add(
            "--namespace",
            default=UNSET,
            help="Where the entries are that name none (default: the setting NAMESPACE).",
        )
        add(
            "--ttl",
            type=float,
            default=UNSET,
            help="Seconds that they stay fresh (default: the setting TTL).",
        )
        add("--tag", action="append", default=[], help="A label on each entry; may be repeated.")
        add(
            "--concurrency",
            type=int,
            default=CONCURRENCY,
            help="Calls to the model at a time, at most (default: %(default)s).",
        )
        self.add_output(parser, bar=True)

    def handle(self, *args: Any, **options: Any) -> None:
        requests = _read(options["file"])
        response_model = _response_model(options["response_model"])
        client = _client(options)
        try:
            with (
                override(namespace=options["namespace"]),
                self.progress(options, "Answering") as progress,
            ):
                _check_namespace(requests.values())
                results = create_many(
                    client,
                    list(requests.values()),
                    response_model=response_model,
                    concurrency=options["concurrency"],
                    progress=progress,
                )
        except InvalidArgument as error:
            if error.number is None:
                raise
            line = list(requests)[error.number]
            raise CommandError(f"Line {line}: {error.args[0]}") from error
        report = _report(dict(zip(requests, results, strict=True)))
        self.tell(options, report, _lines(report))
        if failed := len(report["failed"]):
            raise CommandError(f"{failed} of {_counted(len(results))} failed.")


def _response_model(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise CommandError(f"--response-model is the dotted path of a class: {error}") from error


def _client(options: dict[str, Any]) -> Any:
    try:
        mode = options["mode"] and mode_named(options["mode"])
        return from_provider(options["model"], mode=mode, ttl=options["ttl"], tags=options["tag"])
    except Exception as error:
        raise CommandError(f"There is no client for {options['model']}: {error}") from error


def _check_namespace(requests: Iterable[dict[str, Any]]) -> None:
    """What has no namespace would be asked, and not stored."""
    if all(request.get("cache_namespace") for request in requests):
        return
    try:
        overridden(Policy()).namespace_name  # noqa: B018 - it raises
    except UncacheableRequest as error:
        raise CommandError("There is no namespace for the answers: give --namespace.") from error


def _read(file: str) -> dict[int, dict[str, Any]]:
    """The requests, by the numbers of their lines."""
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from error
    lines = enumerate(text.split("\n"), start=1)
    requests = {number: _arguments(number, line) for number, line in lines if line.strip()}
    if not requests:
        raise CommandError(f"{file} holds no request.")
    return requests


def _arguments(number: int, line: str) -> dict[str, Any]:
    try:
        arguments = json.loads(line)
    except json.JSONDecodeError as error:
        raise CommandError(f"Line {number}, column {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise CommandError(f"Line {number}: it is nested too deeply.") from error
    if not isinstance(arguments, dict):
        raise CommandError(
            f'Line {number}: a request is an object, as in {{"messages": [...]}}; not a '
            f"{type(arguments).__name__}"
        )
    for name in arguments.keys() & FOR_ALL.keys():
        raise CommandError(
            f"Line {number}: {name} is the same for all; give it by {FOR_ALL[name]}."
        )
    return arguments


def _report(results: dict[int, Result[Any]]) -> dict[str, Any]:
    outcomes = Counter(str(result.call.outcome) for result in results.values() if not result.error)
    return {
        "requests": len(results),
        "outcomes": {str(each): outcomes[each] for each in Outcome if outcomes[each]},
        "stored": sum(result.call.stored for result in results.values()),
        "not_stored": [
            {"line": number, "reason_code": call.reason_code, "reason": call.reason}
            for number, result in results.items()
            if not (result.error or (call := result.call).stored or call.tier)
        ],
        "failed": [
            {"line": number, "error": type(error).__name__, "reason": without_content(error)}
            for number, result in results.items()
            if (error := result.error)
        ],
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    counts = [f"{count} {outcome}" for outcome, count in report["outcomes"].items()]
    if report["failed"]:
        counts.append(f"{len(report['failed'])} failed")
    yield f"{_counted(report['requests'])}: {', '.join(counts)}; {report['stored']} stored"
    for each in report["not_stored"]:
        yield f"line {each['line']}: not stored: {printable(each['reason'])}"
    for each in report["failed"]:
        yield f"line {each['line']}: {printable(each['reason'])}"


def _counted(requests: int) -> str:
    return counted(requests, "request", "requests")
