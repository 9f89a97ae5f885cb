"""Counts what the code is made of, and what a call, a miss and an invalidation take in steps.

``python -m tests.support.counting`` prints it as JSON. Unlike times, these figures are the same on
each machine and each run, so a test holds them (`tests/house/test_figures.py`). They are counted in
a process of their own, with servers of its own: no test runner has its hands in there.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from graphlib import CycleError, TopologicalSorter
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, Final

from tests.support.paths import ROOT

PACKAGE: Final = ROOT / "llmcache"
# Of so many calls, the one that took the fewest steps counts: the others met something besides
# their own work, such as what a call before has left to be written.
ATTEMPTS: Final = 8
FORK_HOOKS: Final = {"register_at_fork", "register_after_fork"}


def main() -> None:
    with ExitStack() as stack:
        _set_up(stack)
        print(json.dumps({**of_the_source(), **of_the_work()}, indent=2))


# What the source says


def of_the_source() -> dict[str, int]:
    """The figures that need nothing but the files."""
    lines = {path: path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}
    own = {path for path in lines if "migrations" not in path.parts}
    trees = [ast.parse(path.read_text()) for path in lines]
    folders = [path.parent for path in own if path.name != "__init__.py"]
    return {
        "lines": sum(lines.values()),
        "lines of the longest file": max(lines[path] for path in own),
        "lines of the longest file of the tests": max(
            path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")
        ),
        "modules on top": folders.count(PACKAGE),
        "modules of the fullest folder": max(
            folders.count(folder) for folder in folders if folder != PACKAGE
        ),
        "fork hooks": sum(_calls(tree, FORK_HOOKS) for tree in trees),
        "throw/send loops": sum(map(_trampolines, trees)),
        "imports that close a circle": len(list(_circles())),
    }


def _calls(tree: ast.AST, names: set[str]) -> int:
    """How often a method, or a function of a module, of one of these names is called."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sum(isinstance(func, ast.Attribute) and func.attr in names for func in called)


def _trampolines(tree: ast.AST) -> int:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(
        bool(_calls(node, {"throw"}) and _calls(node, {"send"}))
        for node in ast.walk(tree)
        if isinstance(node, functions)
    )


def _circles() -> Iterator[list[str]]:
    """A circle of imports for each import that has to go; those for types alone count, too."""
    import grimp

    graph = grimp.build_graph("llmcache", cache_dir=None)
    imports = {each: set(graph.find_modules_directly_imported_by(each)) for each in graph.modules}
    while True:
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            circle = error.args[1]
            yield circle
            imports[circle[1]].discard(circle[0])
        else:
            return


# What is done for a call


class Steps:
    """What was called while it was counted: on this thread, or on all.

    A generator counts once, however often it is resumed.
    """

    def __init__(self, *, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.calls = 0
        self.files: set[str] = set()
        #: How often this thread waited for work that another one did.
        self.waits = 0
        self._here = threading.get_ident()
        self._beginnings: dict[CodeType, int] = {}

    def note(self, code: CodeType, instruction: int) -> None:
        is_here = threading.get_ident() == self._here
        if code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            begins = self._beginnings.setdefault(code, instruction) == instruction
            if begins and (is_here or self.everywhere):
                self.calls += 1
                self.files.add(code.co_filename)
        elif is_here and code.co_qualname == "Future.result":
            self.waits += 1


_counted: Steps | None = None


def _profile(frame: FrameType, event: str, _: object) -> None:
    if _counted is not None and event == "call":
        _counted.note(frame.f_code, frame.f_lasti)


@contextmanager
def _counting(*, everywhere: bool = False) -> Iterator[Steps]:
    """Count in the block, and what it has other threads do until that is done."""
    from llmcache.background import database

    global _counted
    steps = _counted = Steps(everywhere=everywhere)
    sys.setprofile(_profile)
    try:
        yield steps
    finally:
        sys.setprofile(None)
        database.finish()
        _counted = None


def of_the_work() -> dict[str, int]:
    """The figures of calls, through a client of OpenAI, with Redis in front of the rows."""
    import llmcache
    from project.standin.server import StandIn

    with StandIn() as model:
        figures = _of_calls(model.url) | {
            f"statements to invalidate one key on {vendor}": _statements(model.url, alias)
            for vendor, alias in [("SQLite", "default"), ("PostgreSQL", "postgres")]
        }
    llmcache.flush()  # (the servers end before this process does)
    return figures


def _of_calls(base_url: str) -> dict[str, int]:
    ask = _asking(base_url, "default")
    for number in range(2):
        ask(f"warm {number}")
    misses = [_steps(ask, f"miss {number}", "miss") for number in range(ATTEMPTS)]
    hits = [_steps(ask, "warm 0", "hit") for _ in range(2 * ATTEMPTS)]
    hit, miss = (min(some, key=lambda steps: steps.calls) for some in (hits, misses))
    return {
        "own calls on a hit": hit.calls,
        "own files on a hit": len(hit.files),
        "own calls on a miss": miss.calls,
        "own files on a miss": len(miss.files),
        "waits for workers on a miss": miss.waits,
    }


def _steps(ask: Callable[[str], object], question: str, outcome: str) -> Steps:
    import llmcache

    with llmcache.capture() as calls, _counting(everywhere=outcome == "miss") as steps:
        ask(question)
    assert [str(call.outcome) for call in calls] == [outcome], calls
    return steps


def _statements(base_url: str, alias: str) -> int:
    """How many statements it takes to invalidate one entry, whose copy is in Redis."""
    ask = _asking(base_url, alias)
    return min(_statements_for(ask, f"doomed {number}") for number in range(ATTEMPTS))


def _statements_for(ask: Callable[[str], object], question: str) -> int:
    import llmcache
    from llmcache.background import database

    with llmcache.capture() as calls:
        ask(question)
    database.finish()
    _told.clear()
    invalidated = llmcache.invalidate(keys=[calls[0].key])
    database.finish()
    assert (invalidated.entries, invalidated.pending) == (1, ()), invalidated
    return len(_told)


def _asking(base_url: str, alias: str) -> Callable[[str], object]:
    from django.conf import settings
    from pydantic import BaseModel

    import llmcache

    class Ticket(BaseModel):
        subject: str

    settings.LLMCACHE = {"DATABASE": alias, "CACHE": "redis"}
    client: Any = llmcache.from_provider("openai/gpt-4.1-mini", api_key="k", base_url=base_url)

    def ask(question: str) -> object:
        messages = [{"role": "user", "content": question}]
        return client.create(response_model=Ticket, messages=messages)

    return ask


_told: Final[list[str]] = []


def _note_statement(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
    if sql != "BEGIN":  # (of which only SQLite's comes by here, and no COMMIT)
        _told.append(sql)
    return execute(sql, *rest)


# Where that is counted


def _set_up(stack: ExitStack) -> None:
    """Servers and tables, and eyes on all threads."""
    from tests.support.servers import PostgreSQLServer, RedisServer

    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "LLMCACHE_TEST_DIRECTORY": stack.enter_context(TemporaryDirectory()),
        "LLMCACHE_TEST_REDIS": stack.enter_context(RedisServer()).url,
        "LLMCACHE_TEST_POSTGRES": stack.enter_context(PostgreSQLServer()).url,
    }
    import django
    from django.core.management import call_command
    from django.db.backends.signals import connection_created

    django.setup()
    threading.setprofile(_profile)
    connection_created.connect(
        lambda connection, **_: connection.execute_wrappers.append(_note_statement), weak=False
    )
    for alias in ("default", "postgres"):
        call_command("migrate", "llmcache", database=alias, verbosity=0)


if __name__ == "__main__":
    main()
