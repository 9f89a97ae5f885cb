"""``manage.py llmcache_warm``: answer a file of requests, so that the next to ask finds them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from llmcache.client import create_many, from_provider
from llmcache.client.many.answering import CONCURRENCY
from llmcache.client.many.batch import Result
from llmcache.client.wrapping import mode_named
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.explanation.diff import printable
from llmcache.outcomes import Outcome
from llmcache.policy import UNSET, Policy, overridden, override

STDIN: Final = "-"
# How `create_many` names a request.
# These are options of the command, for all lines.
FOR_ALL: Final = {"response_model": "--response-model", "model": "--model"}


class Command(BaseCommand):
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
            help="Where the entries are that name none (default: the setting NAMESPACE).",
        )
        add("--ttl", type=float, help="Seconds that they stay fresh (default: the setting TTL).")
        add("--tag", action="append", default=[], help="A label on each entry; may be repeated.")
        add(
            "--concurrency",
            type=int,
            default=CONCURRENCY,
            help="Calls to the model at a time, at most (default: %(default)s).",
        )
        add("--format", choices=("text", "json"), default="text", help="Default: %(default)s.")
        add("--no-progress", action="store_true", help="Show no bar, on a terminal either.")

    def handle(self, *args: Any, **options: Any) -> None:
        numbers, requests = _read(options["file"])
        response_model = _response_model(options["response_model"])
        client = _client(options)
        try:
            with (
                override(namespace=_given(options["namespace"])),
                self._progress(len(requests), hidden=options["no_progress"]) as progress,
            ):
                _check_namespace(requests)
                results = create_many(
                    client,
                    requests,
                    response_model=response_model,
                    concurrency=options["concurrency"],
                    progress=progress,
                )
        except InvalidArgument as error:
            raise CommandError(_with_line(error, numbers)) from error
        report = _report(dict(zip(numbers, results, strict=True)))
        as_json = options["format"] == "json"
        self.stdout.write(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))
        if failed := len(report["failed"]):
            raise CommandError(f"{failed} of {_requests(len(results))} failed.")

    @contextmanager
    def _progress(
        self, total: int, *, hidden: bool
    ) -> Iterator[Callable[[int, int], object] | None]:
        """What shows on a terminal how many are done; None elsewhere, and without rich."""
        bar = None if hidden or not self.stderr.isatty() else _bar()
        if bar is None:
            yield None
            return
        with bar:
            task = bar.add_task("Answering", total=total)
            yield lambda done, _: bar.update(task, completed=done)


def _bar() -> Any:
    """rich's bar on standard error; None when rich is not installed."""
    try:
        from rich.console import Console  # optional
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        return None
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _response_model(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise CommandError(f"--response-model is the dotted path of a class: {error}") from error


def _client(options: dict[str, Any]) -> Any:
    try:
        mode = options["mode"] and mode_named(options["mode"])
        ttl = _given(options["ttl"])
        return from_provider(options["model"], mode=mode, ttl=ttl, tags=options["tag"])
    except Exception as error:
        raise CommandError(f"There is no client for {options['model']}: {error}") from error


def _given(option: Any) -> Any:
    return UNSET if option is None else option


def _check_namespace(requests: list[dict[str, Any]]) -> None:
    """What has no namespace would be asked, and not stored."""
    if all(request.get("cache_namespace") for request in requests):
        return
    try:
        overridden(Policy()).namespace_name  # noqa: B018 - it raises
    except UncacheableRequest as error:
        raise CommandError("There is no namespace for the answers: give --namespace.") from error


def _read(file: str) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers of the lines that hold a request, and the requests."""
    numbers, requests = [], []
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            numbers.append(number)
            requests.append(_arguments(number, line))
    if not requests:
        raise CommandError(f"{file} holds no request.")
    return numbers, requests


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from error


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


def _with_line(error: InvalidArgument, numbers: list[int]) -> str:
    """What is wrong, with the line in the place of the request's number."""
    if error.number is None:
        return str(error)
    return f"Line {numbers[error.number]}: {error.args[0]}"


def _report(results: dict[int, Result[Any]]) -> dict[str, Any]:
    outcomes = Counter(str(result.call.outcome) for result in results.values() if not result.error)
    return {
        "requests": len(results),
        "outcomes": {str(each): outcomes[each] for each in Outcome if outcomes[each]},
        "stored": sum(result.call.stored for result in results.values()),
        "not_stored": [
            {
                "line": number,
                "reason_code": result.call.reason_code,
                "reason": result.call.reason,
            }
            for number, result in results.items()
            if not (result.error or result.call.stored or result.call.tier)
        ],
        "failed": [
            {
                "line": number,
                "error": type(result.error).__name__,
                "reason": without_content(result.error),
            }
            for number, result in results.items()
            if result.error
        ],
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    counts = [f"{count} {outcome}" for outcome, count in report["outcomes"].items()]
    if report["failed"]:
        counts.append(f"{len(report['failed'])} failed")
    yield f"{_requests(report['requests'])}: {', '.join(counts)}; {report['stored']} stored"
    for each in report["not_stored"]:
        yield f"line {each['line']}: not stored: {printable(each['reason'])}"
    for each in report["failed"]:
        yield f"line {each['line']}: {printable(each['reason'])}"


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"
