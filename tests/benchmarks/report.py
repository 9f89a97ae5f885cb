"""The table, and the page around it."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import psutil
import redis
from django.db import connections

from tests.benchmarks.measuring import Subject
from tests.benchmarks.rows import Row, raw_get
from tests.benchmarks.settings import DATABASE_SERVERS, Urls
from tests.servers import RedisServer

PACKAGES = (
    "Django",
    "instructor",
    "pydantic",
    "openai",
    "redis",
    "hiredis",
    "django-redis",
    "psycopg",
    "mysqlclient",
    "diskcache",
)


@dataclass(frozen=True)
class Column:
    """A column: its heading, and its cell for a row, given the row to compare with (or None)."""

    heading: str
    cell: Callable[[Subject, Subject | None], str]


def microseconds(nanoseconds: float) -> str:
    return f"{nanoseconds / 1000:,.{0 if nanoseconds >= 100_000 else 1}f}"


def times_the_floor(subject: Subject, floor: Subject | None) -> str:
    """The median of the rounds' ratios: what slowed a whole round down cancels out."""
    if floor is None:
        return "–"
    pairs = zip(subject.medians, floor.medians, strict=True)
    return f"{median(own / least for own, least in pairs):.1f}"


def spread(subject: Subject, _: Subject | None) -> str:
    return f"{microseconds(min(subject.medians))} – {microseconds(max(subject.medians))}"


COLUMNS = (
    Column("answered by", lambda subject, _: subject.row.title),
    Column("p50, µs", lambda subject, _: microseconds(subject.percentile(50))),
    Column("p99, µs", lambda subject, _: microseconds(subject.percentile(99))),
    Column("× `GET`", times_the_floor),
    Column("p50 of the rounds, µs", spread),
)


def table(subjects: Sequence[Subject]) -> str:
    """The measured rows in Markdown, in the order in which they are written down."""
    floor = next((subject for subject in subjects if subject.row.prepare is raw_get), None)
    cells = [[column.cell(subject, floor) for column in COLUMNS] for subject in subjects]
    return markdown([[column.heading for column in COLUMNS], *cells])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Aligned, so that the same text reads well on a terminal: texts left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    first, *rest = [_padded(line, widths) for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [first, rule, *rest])


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    text, *numbers = line
    return [
        text.ljust(widths[0]),
        *(number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)),
    ]


def missing(rows: Iterable[Row]) -> str:
    """The rows that cannot be measured here, and why."""
    return "\n".join(f"- not measured: {row.title} ({row.lacking()})" for row in rows)


def page(results: str, urls: Urls, rounds: int, calls: int, load: str) -> str:
    """The page with `results` in it; `load` is what `load` said before the first round."""
    return PAGE.format(
        results=results,
        rounds=rounds,
        calls=calls,
        date=datetime.now(UTC).date(),
        machine=machine(),
        load=load,
        python=platform.python_version(),
        packages=", ".join(filter(None, map(_package, PACKAGES))),
        servers=", ".join(servers(urls)),
    )


def machine() -> str:
    """In general words: what matters for the times, and nothing that names the machine."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores of {processor()}, {memory:.0f} GiB of memory, {platform.system()}"
    )


def load() -> str:
    """How many processes wanted a core in the last minute: what else the machine was doing."""
    return f"{os.getloadavg()[0]:.1f}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def servers(urls: Urls) -> Iterable[str]:
    yield f"SQLite {sqlite3.sqlite_version}"
    if RedisServer in urls:
        with redis.Redis.from_url(urls[RedisServer]) as client:
            yield f"Redis {client.info('server')['redis_version']}"
    for alias, server in DATABASE_SERVERS.items():
        if server in urls:
            connection = connections[alias]
            number = ".".join(map(str, connection.get_database_version()))
            yield f"{connection.display_name} {number}"


def _package(name: str) -> str | None:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return None


PAGE = """\
# Benchmarks

How long `client.create` takes when the answer comes from a cache. `make bench` measures it and
writes this page.

{results}

## How to read it

The call is `client.create(response_model=..., messages=...)` with a model of two fields, a system
prompt of 400 characters and a short message; one thread, nothing else asked at the same time.
Every server is on the same machine, so a network adds its own time to each row but those that stay
in the process or in a file.

- **p50** and **p99** are over all calls of the row.
- **× `GET`** compares with `redis-py` fetching the bytes that llmcache keeps in Redis, by the
  hiredis parser and without looking at them: no cache on Redis can be faster. It is the median of
  the rounds' ratios. `GET` itself takes twice as long on a machine so idle that its cores sleep
  between question and answer: look at the microseconds too.
- **p50 of the rounds** is the lowest and the highest median of a round. Far apart, they tell that
  the machine had other things to do, which strikes the slow rows most; then the lowest is the one
  to compare.

In each of {rounds} rounds every row makes {calls} calls, in an order drawn anew, after one round
and some calls before each turn that do not count. Garbage collection stays on; what other rows
left is collected before a turn. Before and after each turn a call is checked: it is a hit, from the
tier that the row names, with the answer of the live call; and the model, an offline stand-in, is
asked by no call at all. llmcache writes its counts of hits to the rows in batches; here, between
the turns.

instructor's caches are given a namespace, without which no two clients share an answer. “async” is
one coroutine that awaits one call after the other: it shows what the way through a thread costs,
not what asyncio is for.

## Measured on

- {date}
- {machine}, load {load}
- Python {python}
- {packages}
- {servers}
"""
