"""`make bench` measures and says so. How fast anything is, no test asserts."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks import (
    over_http,  # noqa: F401 - its rows
    peers,  # noqa: F401 - the peers' rows
    report,
)
from tests.benchmarks.measuring import Subject
from tests.benchmarks.misses import Misses
from tests.benchmarks.promises import PROMISES, Promise, lines, more, times
from tests.benchmarks.report import COLUMNS, markdown, missing, table
from tests.benchmarks.rows import ROWS, Row, raw_get

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d[\d,]*(\.\d)?")
# What can be measured everywhere: rows without a server, whose libraries are installed.
SERVERLESS = [
    row
    for row in ROWS
    if all(isinstance(need, str) for need in row.needs)
    and row.lacking() is None
    # (large libraries, which only `make bench` installs)
    and not {*row.needs} & {"dspy", "fastapi", "langchain_openai"}
]


def cells(results: str) -> dict[str, list[str]]:
    """The cells of each line of a table, by its first one."""
    lines = [line.strip("| ").split(" | ") for line in results.splitlines() if "|" in line]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def subject(prepare, turns: list[list[int]]) -> Subject:
    row = Row(prepare.__name__, prepare, ("no_such_module",), None, {})
    return Subject(row, lambda: None, None, turns)


class TestTable:
    """Times are in nanoseconds; the rows below are the floor and one that takes twice as long."""

    def test_compares_each_row_with_the_floor(self) -> None:
        floor = subject(raw_get, [[1000, 1000, 4000], [500, 500, 500]])
        other = subject(print, [[2000, 2000, 2000], [1000, 1000, 1000]])
        assert cells(table([floor, other])) == {
            COLUMNS[0].heading: [column.heading for column in COLUMNS[1:]],
            "-" * len(COLUMNS[0].heading): [
                "------:",
                "------:",
                "------:",
                "--------------------:",
                *("-" * (len(column.heading) - 1) + ":" for column in COLUMNS[5:]),
            ],
            "raw_get": ["0.5", "4.0", "1.0", "0.5 – 1.0", "–", "–", "–", "–"],
            "print": ["1.0", "2.0", "2.0", "1.0 – 2.0", "–", "–", "–", "–"],
        }

    def test_does_without_the_floor(self) -> None:
        assert cells(table([subject(print, [[150_000]])]))["print"][:3] == ["150", "150", "–"]

    def test_says_how_many_calls_a_second_there_were(self) -> None:
        one = subject(print, [[1000]])
        one.per_second = {1: [1000.0, 3000.0, 2000.0], 8: [5000.0]}
        assert cells(table([one]))["print"][4:] == ["2,000", "5,000", "–", "–"]
        other = subject(print, [[1000]])
        other.per_second, other.stills = {1000: [10_000.0]}, [1e6, 3e6, 2e6]
        assert cells(table([other]))["print"][4:] == ["–", "–", "10,000", "2.0"]

    def test_is_aligned(self) -> None:
        lines = markdown([["a", "b"], ["long", "1,000"]]).splitlines()
        assert lines == ["| a    |     b |", "| ---- | ----: |", "| long | 1,000 |"]

    def test_says_what_is_missing_and_why(self) -> None:
        assert missing([subject(print, []).row]) == (
            "- not measured: print (no_such_module is not installed)"
        )


class TestPromises:
    def test_each_is_of_rows_that_there_are(self) -> None:
        everything = [subject(row.prepare, [[1000]]) for row in ROWS]
        for each in everything:
            each.per_second, each.stills = {1000: [1.0]}, [1.0]
        figures = lines(everything, [])
        assert len(figures) == len(PROMISES) + 1  # (and the heading)
        assert not [line for line in figures if line[1] == "–"]

    def test_a_bound_is_kept_or_not(self) -> None:
        def one() -> None: ...

        def other() -> None: ...

        named = {"one": subject(one, [[3000], [1000]]), "other": subject(other, [[1000], [1000]])}
        for bound, at_least, kept in [(2, False, "yes"), (1.9, False, "**no**"), (2, True, "yes")]:
            promise = Promise("x", times("one", "other"), bound, at_least=at_least)
            assert promise.line(named)[-1] == kept
        assert more("one", "other")(named) == 1.0
        assert Promise("x", times("one", "none"), 1).line(named)[1] == "–"

    def test_what_a_miss_adds_is_the_median_of_the_rounds(self) -> None:
        misses = Misses("late", 1, bare=[1.0, 2.0, 3.0], missed=[2.0, 5.0, 5.0])
        assert misses.adds == 2.0
        assert lines([], [misses])[-1] == ["late", "2.00 ms", "≤ 1 ms", "**no**"]


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.slow
@pytest.mark.timeout(600)  # (it starts a process for each row)
def test_a_short_run_fills_every_row(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    options = ["--rounds=2", "--calls=2", f"--output={page}", "--rows"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *options, *(row.name for row in SERVERLESS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = cells(done.stdout)
    for row in SERVERLESS:
        p50, p99, _, spread, *_ = results[row.title]
        for number in (p50, p99, *spread.split(" – ")):
            assert NUMBER.fullmatch(number), (row.title, number)
    assert done.stdout.strip() in page.read_text()


@pytest.mark.slow
def test_a_row_that_asks_the_model_ends_the_run() -> None:
    program = """
from tests.benchmarks import __main__, rows
rows.ROWS.clear()
rows.row("no cache")(lambda bench: bench.asking(rows.instructor.from_provider))
__main__.main()
"""
    options = ["--rounds=1", "--calls=1", "--rows", "<lambda>"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode
    assert "<lambda>: the model was asked" in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_a_table_that_grows(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    options = ["--databases=SQLite", "--sizes", "0", "500", "--doomed=300", f"--output={page}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.growth", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = cells(page.read_text())
    assert results["entries"][5:7] == ["300 by tag, s", "expired a second"]
    for size, ratio in (("0", "–"), ("500", r"\d+\.\d\d")):
        *times, tagged, expired, _, _ = results[size]
        assert re.fullmatch(ratio, times.pop(2)), results[size]
        for number in (*times, tagged, expired):
            assert re.fullmatch(r"[\d,]+(\.\d+)?", number), results[size]


@pytest.mark.slow
def test_a_store_is_filled_by_a_command(tmp_path: Path) -> None:
    file = tmp_path / "site.sqlite3"

    def manage(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments, "--settings=tests.benchmarks.site"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": f"sqlite:///{file}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    manage("migrate", "--verbosity=0")
    parts = ["100,000 of 100,100 entries", "100,100 of 100,100 entries"]
    assert manage("fill_entries", "100100") == parts
    assert manage("fill_entries", "20", "--tag=more") == ["20 of 20 entries"]
    with closing(sqlite3.connect(file)) as connection:
        counted = "SELECT count(distinct key), count(*) FROM llmcache_cacheentry"
        assert connection.execute(counted).fetchall() == [(100_120, 100_120)]
        counted = "SELECT tag, count(*) FROM llmcache_entrytag GROUP BY tag ORDER BY tag"
        assert connection.execute(counted).fetchall() == [("filling", 100_100), ("more", 20)]


def test_commands_leave_the_sections_of_each_other_as_they_are(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    for figure in ("30", "28"):
        report.put(page, f"# Benchmarks\n\n{figure}\n\n## Measured on\n\n- today\n")
        report.put(page, f"## The admin\n\n| list | {figure} |\n")
        report.put(page, "## Removing\n\nquickly")
    assert page.read_text() == (
        "# Benchmarks\n\n28\n\n## Measured on\n\n- today\n\n"
        "## The admin\n\n| list | 28 |\n\n## Removing\n\nquickly\n"
    )
