"""The table, and the page around it."""

from __future__ import annotations

import os
import platform
import re
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

from tests.benchmarks.measuring import COROUTINES, THREADS, Subject
from tests.benchmarks.misses import Misses
from tests.benchmarks.promises import lines
from tests.benchmarks.rows import Row, raw_get
from tests.benchmarks.settings import DATABASE_SERVERS, Urls
from tests.support.servers import RedisServer

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
    "langchain-core",
    "langchain-openai",
    "langchain-community",
    "dspy",
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


def rate(at_once: int) -> Callable[[Subject, Subject | None], str]:
    def cell(subject: Subject, _: Subject | None) -> str:
        rates = subject.per_second.get(at_once)
        return f"{median(rates):,.0f}" if rates else "–"

    return cell


def still(subject: Subject, _: Subject | None) -> str:
    return f"{median(subject.stills) / 1e6:.1f}" if subject.stills else "–"


COLUMNS = (
    Column("answered by", lambda subject, _: subject.row.title),
    Column("p50, µs", lambda subject, _: microseconds(subject.percentile(50))),
    Column("p99, µs", lambda subject, _: microseconds(subject.percentile(99))),
    Column("× `GET`", times_the_floor),
    Column("p50 of the rounds, µs", spread),
    Column("a second", rate(THREADS[0])),
    Column("8 threads", rate(THREADS[1])),
    Column("1,000 coroutines", rate(COROUTINES)),
    Column("still, ms", still),
)


def table(subjects: Sequence[Subject]) -> str:
    """The measured rows in Markdown, in the order in which they are written down."""
    floor = next((subject for subject in subjects if subject.row.prepare is raw_get), None)
    cells = [[column.cell(subject, floor) for column in COLUMNS] for subject in subjects]
    return markdown([[column.heading for column in COLUMNS], *cells])


def results(
    small: Sequence[Subject],
    large: Sequence[Subject],
    absent: Sequence[Row],
    misses: Sequence[Misses],
    memory: float,
) -> str:
    """Everything that was measured, in Markdown."""
    parts = [table(small), missing(absent), "## What is promised", markdown(lines(small, misses))]
    if misses:
        first, *_ = misses
        parts.append(
            f"A call of the stand-in past any cache takes {median(first.bare):.1f} ms, a miss "
            f"{median(first.missed):.1f} ms."
        )
    parts += [f"With all of these rows at work, the process holds {memory:,.0f} MiB."]
    parts += ["## A large question", table(large)]
    return "\n\n".join(filter(None, parts))


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
        obstacles=OBSTACLES,
        rounds=rounds,
        calls=calls,
        date=datetime.now(UTC).date(),
        machine=machine(),
        load=load,
        python=platform.python_version(),
        packages=", ".join(filter(None, map(_package, PACKAGES))),
        servers=", ".join(servers(urls)),
    )


def put(page: Path, text: str) -> None:
    """Put the sections of `text` into `page`, in the place of those with the same headings.

    Several commands write the page; each leaves the sections of the others as they are.
    """
    page.parent.mkdir(exist_ok=True)
    parts = _parts(page.read_text()) if page.exists() else {}
    page.write_text("\n\n".join(map(str.strip, (parts | _parts(text)).values())) + "\n")


def _parts(text: str) -> dict[str, str]:
    """The sections by their headings."""
    return {part.partition("\n")[0]: part for part in re.split(r"\n(?=## )", text)}


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


OBSTACLES = """\
Where a figure above is missed, or nearly, this is what the time goes to, by a profile:

- `create` from Redis: the question itself takes about 16 µs on the socket, in the kernel and in
  Redis. The rest is Python, by a sampling profiler: 29 % the key (11 the canonical form of the
  messages, 5 its hash), 13 % reading and checking the envelope, 18 % restoring the answer (3 of it
  validation) and the completion that hangs on it, and the rest the rules, their driver, the breaker
  and the settings.
- A miss: looking it up (0.6 ms, most of it the way to the rows), the lease in Redis (0.4 ms), one
  more look with it and which invalidations there were (0.7 ms), proving that the answer comes back
  (0.5 ms), and the transaction that stores the answer (1.5 ms, of which PostgreSQL takes 0.8 for a
  row in 13 indexes) on a thread that has its own connection (0.5 ms). The answer is written before
  the caller has it, since what was paid for is kept; its hot copy is made behind the caller.
- 1,000 coroutines: each begins by taking its turn, all in the first turn of the loop; the rest of a
  call is done by 16 in each turn."""

PAGE = """\
# Benchmarks

How long a structured output takes when the answer comes from a cache, llmcache's and others'.
`make bench` measures it and writes this page.

{results}

## How to read it

The call is `client.create(response_model=..., messages=...)` or what is like it in another library:
small, with a model of two fields, a system prompt of 400 characters and a short message; and large,
with a model in a model in a model and 20 kB of messages. Every server is on the same machine, so a
network adds its own time to each row but those that stay in the process or in a file.

- **p50** and **p99** are over all calls of the row, one after the other.
- **× `GET`** compares with `redis-py` fetching the bytes that llmcache keeps in Redis, by the
  hiredis parser and without looking at them. It is the median of the rounds' ratios.
- **p50 of the rounds** is the lowest and the highest median of a round. Far apart, they tell that
  the machine had other things to do, which strikes the slow rows most.
- **a second**, **8 threads** and **1,000 coroutines** are calls a second with so many at once. A
  peer that asked the model then has none.
- **still** is for how long another coroutine waited for its turn while 1,000 calls were made.

In each of {rounds} rounds (a quarter for the large question) every row makes {calls} calls, in an
order drawn anew, after one round and some calls before each turn that do not count. In these
rounds the process and its servers share one core: else a call sometimes waits for a core that
sleeps, as the kernel sees fit, which takes longer than a `GET`. Many at once have all cores.
Garbage collection stays on; what other rows left is collected before a turn. Before and after each
turn a call is checked: it is a hit, from the tier that the row names, with the answer of the live
call; and the model, an offline stand-in, is asked by no call at all. (Such a turn of a peer does
not count, and is taken again.) llmcache writes its counts of hits to the rows in batches; here,
between the turns.

A miss is compared with the same call past any cache, in turns, each with a question of its own.
What is done behind the caller (the lease, the hot copy) is waited for between two calls, and not
counted.
instructor's caches are given a namespace, without which no two clients share an answer. DSPy's
caches are asked for text, which nobody validates, and so are LiteLLM's and the SDK of OpenAI.

## What stands in the way

{obstacles}

## Measured on

- {date}
- {machine}, load {load}
- Python {python}
- {packages}
- {servers}
"""
