"""The command: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
from django.db import connections

from project.standin.server import StandIn
from tests.benchmarks import over_http, peers, report  # noqa: F401 - their rows
from tests.benchmarks.measuring import Measurement, Subject
from tests.benchmarks.misses import measure
from tests.benchmarks.question import LARGE, SMALL, Question
from tests.benchmarks.rows import ROWS, Bench, Row
from tests.benchmarks.settings import set_up
from tests.support.servers import PostgreSQLServer, RedisServer

ROUNDS, CALLS = 20, 100
AT_ONCE_ROUNDS = 3
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    options = arguments()
    rows = [row for row in ROWS if row.name in options.rows]
    absent = [row for row in rows if row.lacking()]
    present = [row for row in rows if row not in absent]
    load = report.load()
    with benches(present, SMALL) as bench:
        small, memory = measured(present, bench, options.rounds, options.calls)
        rows = [row for row in present if not row.only_small]
        large, _ = measured(
            rows, replace(bench, question=LARGE), max(1, options.rounds // 4), options.calls
        )
        found = {*bench.urls} >= {PostgreSQLServer, RedisServer}
        misses = measure(bench, max(1, options.rounds // 4)) if found else []
        results = report.results(small, large, absent, misses, memory)
        print(results)
        if options.output:
            page = report.page(results, bench.urls, options.rounds, options.calls, load)
            report.put(options.output, page)


def measured(
    rows: Sequence[Row], bench: Bench, rounds: int, calls: int
) -> tuple[list[Subject], float]:
    """The rows with their times, and how many MiB the process holds after them."""
    with closing(Measurement(rows, bench)) as measurement:
        subjects = measurement.run(rounds, calls, tell(rounds))
        measurement.run_at_once(min(rounds, AT_ONCE_ROUNDS))
        return subjects, psutil.Process().memory_info().rss / 2**20


def arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS)
    parser.add_argument("--calls", type=positive, default=CALLS, help="of each row in each round")
    parser.add_argument("--rows", nargs="+", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument(
        "--output",
        type=Path,
        help=f"default: {PAGE.parent.name}/{PAGE.name}, unless --rows is given",
    )
    options = parser.parse_args()
    # Part of the rows must not take the place of the whole table.
    options.output = options.output or (None if options.rows else PAGE)
    options.rows = options.rows or names
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


@contextmanager
def benches(rows: Sequence[Row], question: Question) -> Iterator[Bench]:
    """Everything that `rows` need, for as long as the block runs."""
    needed = {need for row in rows for need in row.needs if not isinstance(need, str)}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {server: stack.enter_context(server()).url for server in needed}
        standin = stack.enter_context(StandIn())
        set_up(urls, directory)
        stack.callback(connections.close_all)
        yield Bench(urls, directory, standin, question)


def tell(rounds: int) -> Callable[[int], None]:
    """Say how far it is, in one line, and not where the table goes."""

    def tell_round(number: int) -> None:
        what = f"round {number} of {rounds}" if number else "warming up"
        print(f"\r{what} ", end="" if number < rounds else "\n", file=sys.stderr, flush=True)

    return tell_round


if __name__ == "__main__":
    main()
