"""`make bench` measures and says so. How fast anything is, no test asserts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.measuring import Subject
from tests.benchmarks.report import COLUMNS, markdown, missing, table
from tests.benchmarks.rows import ROWS, Row, raw_get

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"\d[\d,]*(\.\d)?")
# What can be measured everywhere: rows without a server, whose libraries are installed.
SERVERLESS = [
    row
    for row in ROWS
    if all(isinstance(need, str) for need in row.needs) and row.lacking() is None
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
            ],
            "raw_get": ["0.5", "4.0", "1.0", "0.5 – 1.0"],
            "print": ["1.0", "2.0", "2.0", "1.0 – 2.0"],
        }

    def test_does_without_the_floor(self) -> None:
        assert cells(table([subject(print, [[150_000]])]))["print"][:3] == ["150", "150", "–"]

    def test_is_aligned(self) -> None:
        lines = markdown([["a", "b"], ["long", "1,000"]]).splitlines()
        assert lines == ["| a    |     b |", "| ---- | ----: |", "| long | 1,000 |"]

    def test_says_what_is_missing_and_why(self) -> None:
        assert missing([subject(print, []).row]) == (
            "- not measured: print (no_such_module is not installed)"
        )


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.slow
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
        p50, p99, _, spread = results[row.title]
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
