"""What becomes of it all when a table grows: ``python -m tests.benchmarks.growth``.

On servers of its own, with so many entries and so many more: calls that the rows answer, what it
takes to store an answer, to invalidate a hundred thousand entries by their tag and to let as many
expire, and the space that an entry takes. It prints tables; ``--output`` puts them into the page of
the benchmarks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from project.standin.server import StandIn
from tests.benchmarks import scale
from tests.benchmarks.question import SMALL
from tests.benchmarks.report import load, machine, markdown, put
from tests.benchmarks.rows import Bench
from tests.benchmarks.settings import DATABASE_SERVERS, set_up

ALIASES = {"SQLite": "default", "PostgreSQL": "postgres", "MariaDB": "mariadb"}
SIZES = (0, 1_000_000)
# So many answers are asked for, one after the other, and each so many times.
QUESTIONS, TIMES = 200, 20
STORED = 200


@dataclass(frozen=True)
class Figures:
    """Of a table of `rows`: times in milliseconds, rates in rows a second, space in bytes."""

    rows: int
    hits: list[float]
    stores: list[float]
    invalidated: float
    expired: float
    space: tuple[float, float] | None

    def cells(self, before: Figures | None) -> list[str]:
        hit, worst = percentiles(self.hits)
        ratio = "–" if before is None else f"{worst / percentiles(before.hits)[1]:.2f}"
        stored, slowest = percentiles(self.stores)
        return [
            f"{self.rows:,}",
            *(f"{hit:.2f}", f"{worst:.2f}", ratio),
            *(f"{stored:.1f}", f"{slowest:.1f}"),
            *(f"{self.invalidated:.1f}", f"{self.expired:,.0f}"),
            *("–" if self.space is None else f"{part:,.0f}" for part in self.space or (0, 0)),
        ]


HEADS = [
    "entries",
    *("hit p50, ms", "p99, ms", "× empty"),
    *("store p50, ms", "p99, ms"),
    *("{doomed:,} by tag, s", "expired a second"),
    *("bytes of an entry", "of its indexes"),
]


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    parts = statistics.quantiles(times, n=100)
    return parts[49], parts[98]


def measure(alias: str, sizes: Sequence[int], doomed: int, bench: Bench) -> Iterator[Figures]:
    """A table of the first size, which then grows to the others.

    `doomed`: so many entries are invalidated, and as many expire.
    """
    calls, there = questions(bench), 0
    for size in sizes:
        for done in scale.fill_in_parts(alias, size - there, expires=scale.FRESH, tag="some"):
            tell(f"{alias}: {there + done:,} entries")
        there = size
        settle(alias)
        space = space_of_an_entry(alias) if size else None
        hits, stores = times_of_hits(calls), times_of_stores(f"{size}")
        invalidated, expired = invalidate(alias, doomed), expire(alias, doomed)
        yield Figures(size, hits, stores, invalidated, expired, space)


def questions(bench: Bench) -> list[Callable[[], Any]]:
    """Calls whose answers are stored."""
    import llmcache

    asked = []
    for number in range(QUESTIONS):
        *others, last = SMALL.messages
        message = last | {"content": f"{SMALL.text} ({number})"}
        question = replace(bench.question, messages=[*others, message])
        asked.append(replace(bench, question=question).asking(llmcache.from_provider))
        asked[-1]()
    return asked


def times_of_hits(calls: Sequence[Callable[[], Any]]) -> list[float]:
    import llmcache

    with llmcache.capture() as seen:
        for call in calls:
            call()
    assert {(each.outcome, each.tier) for each in seen} == {("hit", "durable")}, seen
    return [milliseconds(call) for _ in range(TIMES) for call in calls]


def times_of_stores(mark: str) -> list[float]:
    """Of answers as `fill` makes them: without what a model and instructor take."""
    import hashlib

    from llmcache.codec.envelope import ANSWER, seal
    from llmcache.store.records import Draft
    from llmcache.store.rows.late_answers import generation
    from llmcache.store.saving import save

    since, now = generation(), time.time()

    def store(number: int) -> None:
        key = hashlib.sha256(f"{mark} {number}".encode()).hexdigest()
        payload = seal(ANSWER, key, os.urandom(512), created=now, expires=now + scale.FRESH)
        draft = Draft(key, "stored", payload, now, now + scale.FRESH, tags=frozenset({"stored"}))
        assert save(draft, since) is None

    return [milliseconds(lambda number=number: store(number)) for number in range(STORED)]  # type: ignore[misc]


def invalidate(alias: str, doomed: int) -> float:
    """The seconds that it takes to remove so many entries by their tag."""
    import llmcache

    add(alias, doomed, expires=scale.FRESH, namespace="doomed", tag="document:42")
    result, seconds = scale.timed(lambda: llmcache.invalidate(tags=["document:42"]))
    assert (result.entries, result.pending) == (doomed, ()), result
    return float(seconds)


def expire(alias: str, doomed: int) -> float:
    """How many of so many entries expire in a second."""
    from llmcache.removal.expire import expire_entries

    add(alias, doomed, expires=scale.EXPIRED, namespace="expired", tag="some")
    removed, seconds = scale.timed(expire_entries)
    assert removed == doomed, removed
    return float(removed / seconds)


def add(alias: str, rows: int, **options: Any) -> None:
    for _ in scale.fill_in_parts(alias, rows, **options):
        pass
    scale.analyse(alias)


def settle(alias: str) -> None:
    """What a database does by itself after a while, and would else do during what is measured."""
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
        elif connections[alias].vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    scale.analyse(alias)


def space_of_an_entry(alias: str) -> tuple[float, float] | None:
    """The bytes that the table and its indexes take for an entry, its tag included."""
    queries = {
        "postgresql": (
            "SELECT sum(pg_table_size(oid)), sum(pg_indexes_size(oid)) FROM pg_class "
            "WHERE relname IN ('llmcache_cacheentry', 'llmcache_entrytag')"
        ),
        "mysql": (
            "SELECT sum(data_length), sum(index_length) FROM information_schema.tables WHERE "
            "table_name IN ('llmcache_cacheentry', 'llmcache_entrytag')"
        ),
    }
    query = queries.get(connections[alias].vendor)
    if query is None:
        return None
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        table, indexes = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM llmcache_cacheentry")
        [rows] = cursor.fetchone()
    return float(table) / rows, float(indexes) / rows


def milliseconds(work: Callable[[], Any]) -> float:
    return float(scale.timed(work)[1]) * 1000


def tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def table(figures: Sequence[Figures], doomed: int) -> str:
    empty = next((each for each in figures if not each.rows), None)
    cells = [each.cells(empty if each.rows else None) for each in figures]
    return markdown([[head.format(doomed=doomed) for head in HEADS], *cells])


def section(found: dict[str, list[Figures]], doomed: int, load_before: str) -> str:
    tables = "\n\n".join(
        f"### {name}\n\n{table(figures, doomed)}" for name, figures in found.items()
    )
    return SECTION.format(
        tables=tables,
        questions=QUESTIONS,
        doomed=f"{doomed:,}",
        date=datetime.now(UTC).date(),
        machine=machine(),
        load=load_before,
    )


SECTION = """## A table that grows

Calls of `client.create` that the rows answer (`LLMCACHE["CACHE"]` is `None`), {questions}
questions in turn; answers of 512 bytes that are stored; {doomed} entries that are invalidated by a
tag that they share, and {doomed} that expire. The space is that of rows with a payload of 512
random bytes and a tag, and without prompts.

{tables}

`python -m tests.benchmarks.growth` measures it and writes this section. Measured on {date}, on
{machine}, load {load}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=ALIASES, default=list(ALIASES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument(
        "--large",
        type=int,
        default=10_000_000,
        help="one more size, for PostgreSQL; 0 leaves it out",
    )
    parser.add_argument("--doomed", type=int, default=100_000, help="rows that are removed")
    parser.add_argument("--output", type=Path, help="as docs/benchmarks.md")
    options = parser.parse_args()
    load_before = load()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        aliases = [ALIASES[name] for name in options.databases]
        servers = {DATABASE_SERVERS[alias] for alias in aliases if alias in DATABASE_SERVERS}
        urls = {server: stack.enter_context(server()).url for server in servers}
        bench = Bench(urls, directory, stack.enter_context(StandIn()), SMALL)
        set_up(urls, directory)
        stack.callback(connections.close_all)
        found = {}
        for name, alias in zip(options.databases, aliases, strict=True):
            settings.LLMCACHE = {"CACHE": None, "DATABASE": alias}
            sizes = [*options.sizes]
            if name == "PostgreSQL" and options.large:
                sizes.append(options.large)
            found[name] = list(measure(alias, sizes, options.doomed, bench))
            print(name, table(found[name], options.doomed), sep="\n\n", flush=True)
        if options.output:
            put(options.output, section(found, options.doomed, load_before))


if __name__ == "__main__":
    main()
