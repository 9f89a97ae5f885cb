"""docs/faults.md, made of the figures of a long run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.report import machine, markdown

Line = dict[str, Any]
Column = tuple[str, Callable[[Line], str]]


def number(name: str, digits: int = 0) -> Callable[[Line], str]:
    return lambda line: f"{line[name]:,.{digits}f}"


def text(name: str) -> Callable[[Line], str]:
    return lambda line: str(line[name])


def counts(name: str) -> Callable[[Line], str]:
    """What was counted, the most frequent first."""
    return lambda line: (
        ", ".join(f"{what} {n:,}" for what, n in sorted(line[name].items(), key=lambda i: -i[1]))
        or "–"
    )


FAULTS: Final[Sequence[Column]] = (
    ("fault", lambda line: f"{line['server']}: {line['fault'].rstrip('.')}"),
    ("seconds", number("seconds")),
    ("calls", number("calls")),
    ("errors", number("errors")),
    ("wrong answers", number("wrong")),
    ("added p50, ms", number("p50", 1)),
    ("p99, ms", number("p99")),
    ("longest, ms", number("max")),
)
HERDS: Final[Sequence[Column]] = (
    ("where", text("where")),
    ("callers", text("callers")),
    ("model calls", number("asked")),
    ("kills", number("kills")),
    ("errors", number("errors")),
    ("slowest behind the answer, ms", number("lag")),
)
LINEARITY: Final[Sequence[Column]] = (
    ("where", text("where")),
    ("workers", number("workers")),
    ("operations", number("operations")),
    ("reads", number("reads")),
    ("invalidations", number("removals")),
    ("too old", number("too_old")),
)
KILLS: Final[Sequence[Column]] = (
    ("", lambda line: "random points"),
    ("kills", number("kills")),
    ("acknowledged answers", number("acknowledged")),
    ("lost", number("lost")),
    ("acknowledged invalidations", number("invalidations")),
    ("undone", number("undone")),
    ("leases left", number("leases")),
    ("longest wait, s", number("longest_wait", 1)),
)
MACHINE: Final[Sequence[Column]] = (
    ("", lambda line: "sequences of operations"),
    ("examples", number("examples")),
    ("steps", number("steps")),
    ("calls", number("calls")),
    ("asked needlessly", lambda line: f"{sum(line['needless'].values()):,}"),
)
GUARDS: Final[Sequence[Column]] = (
    ("without", text("name")),
    ("this happens", text("protects")),
    ("and a test fails", lambda line: "yes" if line["fails"] else "NO"),
    ("tests", lambda line: ", ".join(f"`{test}`" for test in line["tests"])),
)
BROKER: Final[Sequence[Column]] = (
    ("broker", text("what")),
    ("seconds", number("seconds")),
    ("calls", number("calls")),
    ("errors", lambda line: f"{len(line['errors'])}"),
    ("stale answers", number("stale")),
    ("longest, ms", number("max")),
)


def write(figures: Path, page: Path) -> None:
    """Write `page` of the lines that a run has left in the directory `figures`."""
    page.write_text(
        PAGE.format(
            faults=_table(figures, "faults", FAULTS),
            herds=_table(figures, "herds", HERDS),
            kills=_table(figures, "kills", KILLS),
            linearity=_table(figures, "linearity", LINEARITY),
            machine_table=_table(figures, "machine", MACHINE),
            broker=_table(figures, "broker", BROKER, lambda line: "seconds" in line),
            guards=_table(figures, "guards", GUARDS),
            date=datetime.now(UTC).date(),
            machine=machine(),
            python=platform.python_version(),
        )
    )


def _table(
    figures: Path,
    kind: str,
    columns: Sequence[Column],
    wanted: Callable[[Line], bool] = lambda line: True,
) -> str:
    path = figures / f"{kind}.jsonl"
    if not path.exists():
        return "Not measured in this run."
    lines = filter(wanted, map(json.loads, path.read_text().splitlines()))
    cells = [[cell(line) for _, cell in columns] for line in lines]
    return markdown([[heading for heading, _ in columns], *cells])


PAGE: Final = """\
# Faults

What callers see when something breaks. `make faults` breaks real servers, counts, and writes this
page; `make test` runs the same tests for seconds each. The code is in
`tests/faults`.

## Broken servers

Two processes, with four threads and four coroutines each, ask for what is stored (60 of 100 calls)
and what is not, reload and invalidate, while something is broken. The rows are on PostgreSQL and
the hot tier is on Redis, but for the lines of MariaDB and SQLite. “Added” is the time that a call
took beyond that of the model and instructor.

{faults}

## Herds

Many callers with one question at the same moment. One asks; when its process is killed, another
one does.

{herds}

## Killed workers

Workers are killed (SIGKILL) at named points of a call and of an invalidation; they are listed in
`tests/faults/kills.py`. Afterwards each answer that had been acknowledged as stored has to be in
the rows, byte for byte, and what an acknowledged invalidation has removed must not be back.

{kills}

## Invalidation

Answers carry the moment at which they were asked for. A read that begins after an invalidation has
returned, with nothing pending, and gives an older one is “too old”.

{linearity}

## Any sequence

hypothesis asks, stores, invalidates by each criterion, expires, flushes Redis, cuts it off, rolls
transactions back and changes the response model, and compares each answer with a dictionary.
“Asked needlessly” are calls of the model although the dictionary had the answer: never wrong, but
dear.

{machine_table}

## The broker of Celery

A stale answer is to be refreshed by a worker, and the broker is gone.

{broker}

## Guards

Each guard was removed from a copy of the code, in turn.

{guards}

## Measured on

- {date}
- {machine}; all servers and processes on it
- Python {python}
"""
