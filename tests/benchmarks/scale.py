"""Removing at scale: ``python -m tests.benchmarks.scale --database postgres --rows 1000000``.

On a server of its own: invalidation by tag, by namespace and of everything; expiry, alone and twice
at once, and the lookups of readers meanwhile. It prints the figures; ``--output`` puts them into
the page of the benchmarks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from tests.benchmarks.report import machine, markdown, put
from tests.benchmarks.settings import DATABASE_SERVERS, set_up

DAY = 86_400
# A day ago, a day from now.
EXPIRED, FRESH = -DAY, DAY
# So many rows are made by one statement.
PART = 100_000
READ_ALONE_SECONDS = 5

COLUMNS = (
    *("key", "namespace", "provider", "endpoint", "model", "mode", "response_model", "digests"),
    *("request", "payload", "size", "created_at", "expires_at", "stale_until", "hits"),
)

# For each database: the series of numbers, and functions of it and of seconds.
DIALECTS = {
    "postgresql": {
        "series": "generate_series({first}, {last}) AS n",
        "number": "n",
        "key": "encode(sha256(n::text::bytea), 'hex')",
        "bytes": "decode(repeat(md5(n::text), {half}), 'hex')",
        "moment": "now() + make_interval(secs => {seconds} + n * 0.001)",
    },
    "mysql": {
        "series": "seq_{first}_to_{last}",
        "number": "seq",
        "key": "sha2(seq, 256)",
        "bytes": "unhex(repeat(md5(seq), {half}))",
        "moment": "utc_timestamp(6) + INTERVAL ({seconds} + seq * 0.001) SECOND",
    },
    "sqlite": {
        "series": (
            "(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers "
            "WHERE n < {last}) SELECT n FROM numbers)"
        ),
        "number": "n",
        "key": "printf('%064x', n)",
        "bytes": "randomblob({half} * 16)",
        "moment": ("strftime('%Y-%m-%d %H:%M:%f', 'now', ({seconds} + n * 0.001) || ' seconds')"),
    },
}


def fill(
    alias: str,
    rows: int,
    *,
    first: int = 1,
    expires: float = EXPIRED,
    size: int = 512,
    namespace: str = "scale",
    tag: str | None = None,
) -> None:
    """Make so many entries, numbered from `first`: by one statement, not one by one.

    Args:
        expires: seconds from now; each entry a millisecond after the one before.
        size: bytes of a payload.
        tag: a label on each.
    """
    connection = connections[alias]
    dialect = DIALECTS[connection.vendor]
    series = dialect["series"].format(first=first, last=first + rows - 1)
    moments = (
        dialect["moment"].format(seconds=seconds) for seconds in (expires - 10, expires, expires)
    )
    values = ", ".join(
        [
            dialect["key"],
            f"'{namespace}', 'openai', '', 'gpt-4.1-mini', '', 'tests.Ticket', '{{}}', NULL",
            dialect["bytes"].format(half=max(1, size // 16)),
            str(size),
            *moments,
            "0",
        ]
    )
    columns, newest = ", ".join(map(connection.ops.quote_name, COLUMNS)), _newest(alias) or 0
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO llmcache_cacheentry ({columns}) SELECT {values} FROM {series}")
        if tag is not None:
            cursor.execute(
                "INSERT INTO llmcache_entrytag (entry_id, tag) SELECT id, %s FROM "
                "llmcache_cacheentry WHERE namespace = %s AND id > %s",
                [tag, namespace, newest],
            )


def fill_in_parts(alias: str, rows: int, **options: Any) -> Iterator[int]:
    """`fill` with as many as one likes, behind those that are there; how many there are so far."""
    first = 1 + (_newest(alias) or 0)
    for done in range(0, rows, PART):
        fill(alias, min(PART, rows - done), first=first + done, **options)
        yield min(done + PART, rows)


def _newest(alias: str) -> int | None:
    """The highest primary key. (Numbers of entries go by it: so no key comes twice.)"""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT max(id) FROM llmcache_cacheentry")
        newest: int | None = cursor.fetchone()[0]
        return newest


def analyse(alias: str) -> None:
    """Tell the planner what there is, as the database itself does after a while."""
    with connections[alias].cursor() as cursor:
        for table in ("llmcache_cacheentry", "llmcache_entrytag"):
            if connections[alias].vendor == "mysql":
                cursor.execute(f"ANALYZE TABLE {table}")
                cursor.fetchall()
            else:
                cursor.execute(f"ANALYZE {table}")


def empty(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute("TRUNCATE llmcache_cacheentry CASCADE")
        else:
            cursor.execute("DELETE FROM llmcache_entrytag")
            cursor.execute("DELETE FROM llmcache_cacheentry")


@dataclass
class Readers:
    """Threads that look entries up all the time."""

    keys: list[str]
    seconds: list[float] = field(default_factory=list)
    misses: int = 0

    @contextmanager
    def reading(self, threads: int = 2) -> Iterator[None]:
        stop = threading.Event()
        started = [threading.Thread(target=self._read, args=[stop]) for _ in range(threads)]
        for thread in started:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in started:
                thread.join()

    def _read(self, stop: threading.Event) -> None:
        from llmcache.store.lookups import lookup
        from llmcache.store.records import Found

        number = 0
        while not stop.is_set():
            started = time.perf_counter()
            found = lookup(self.keys[number % len(self.keys)])
            self.seconds.append(time.perf_counter() - started)
            self.misses += not isinstance(found, Found)
            number += 1
            time.sleep(0.002)

    def __str__(self) -> str:
        parts = statistics.quantiles(self.seconds, n=100)
        return (
            f"p50 {parts[49] * 1000:.1f} ms, p99 {parts[98] * 1000:.1f} ms, slowest "
            f"{max(self.seconds) * 1000:.0f} ms, {self.misses} misses of {len(self.seconds):,}"
        )


@dataclass
class Figure:
    """How many rows were removed in how many seconds, and how long each batch held its locks."""

    what: str
    rows: int
    seconds: float
    locks: list[float]
    remark: str = ""

    def cells(self) -> list[str]:
        return [
            self.what,
            f"{self.rows:,}",
            f"{self.seconds:.1f}",
            f"{self.rows / self.seconds:,.0f}",
            f"{max(self.locks) * 1000:.0f}",
            self.remark,
        ]


@contextmanager
def watching_locks(found: list[float]) -> Iterator[None]:
    """Collect how long each batch held its locks: from its first statement to its commit."""
    from llmcache.store.batches import Pace

    note = Pace.record

    def note_and_keep(self: Pace, rows: int, seconds: float) -> None:
        found.append(seconds)
        note(self, rows, seconds)

    Pace.record = note_and_keep  # type: ignore[method-assign]
    try:
        yield
    finally:
        Pace.record = note  # type: ignore[method-assign]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def fresh_readers() -> Readers:
    """Readers of a hundred entries that nobody removes."""
    from llmcache.codec.envelope import ANSWER, seal
    from llmcache.store.records import Draft
    from llmcache.store.rows.late_answers import generation
    from llmcache.store.saving import save

    now, keys = time.time(), [f"{number:064x}" for number in range(100)]
    since = generation()
    for key in keys:
        payload = seal(ANSWER, key, b"1" * 500, created=now, expires=now + FRESH)
        assert save(Draft(key, "read", payload, now, now + FRESH), since) is None
    return Readers(keys)


def measure_expiry(alias: str, rows: int) -> Iterator[Figure]:
    from llmcache.removal.expire import expire_entries

    empty(alias)
    readers = fresh_readers()
    fill(alias, rows, tag="some")
    analyse(alias)
    with readers.reading():
        time.sleep(READ_ALONE_SECONDS)
    alone = str(readers)
    locks: list[float] = []
    readers.seconds.clear()
    with readers.reading(), watching_locks(locks):
        removed, seconds = timed(expire_entries)
    yield Figure("expiry", removed, seconds, locks, f"readers: {readers}; before: {alone}")


def measure_two_expiries(alias: str, rows: int) -> Iterator[Figure]:
    """As two workers, and as two threads of one, which also wait for each other's turns."""
    from llmcache.removal.expire import expire_entries

    def figure(what: str, work: Callable[[], tuple[list[int], list[float]]]) -> Figure:
        empty(alias)
        fill(alias, rows, tag="some")
        analyse(alias)
        (removed, locks), seconds = timed(work)
        shares = " and ".join(f"{number:,}" for number in removed)
        remark = f"{shares}; left: {expire_entries(dry_run=True)}"
        return Figure(what, sum(removed), seconds, locks, remark)

    yield figure("two expiries at once", expire_in_processes)
    yield figure("the same on two threads", expire_on_threads)


def expire_in_processes() -> tuple[list[int], list[float]]:
    connections.close_all()  # (none is to be shared with a child)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
        runs = [workers.submit(expire_and_watch) for _ in range(2)]
        removed, locks = zip(*(run.result() for run in runs), strict=True)
    return list(removed), list(chain(*locks))


def expire_and_watch() -> tuple[int, list[float]]:
    from llmcache.removal.expire import expire_entries

    locks: list[float] = []
    with watching_locks(locks):
        return expire_entries(), locks


def expire_on_threads() -> tuple[list[int], list[float]]:
    from llmcache.removal.expire import expire_entries

    locks: list[float] = []
    with watching_locks(locks), ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(expire_entries) for _ in range(2)]
        return [run.result() for run in runs], locks


def measure_invalidation(alias: str, rows: int, doomed: int) -> Iterator[Figure]:
    import llmcache

    empty(alias)
    fill(alias, rows, expires=FRESH)
    fill(alias, doomed, first=10 * rows, expires=FRESH, namespace="doomed", tag="document:42")
    analyse(alias)
    yield invalidated("invalidation by tag", lambda: llmcache.invalidate(tags=["document:42"]))
    fill(alias, doomed, first=10 * rows, expires=FRESH, namespace="doomed")
    by_namespace = partial(llmcache.invalidate, namespace="doomed")
    yield invalidated("invalidation by namespace", by_namespace)
    yield invalidated("of everything", lambda: llmcache.invalidate(everything=True))


def invalidated(what: str, invalidate: Callable[[], Any]) -> Figure:
    locks: list[float] = []
    with watching_locks(locks):
        result, seconds = timed(invalidate)
    assert not result.pending, result
    return Figure(what, result.entries, seconds, locks)


def section(database: str, rows: int, figures: Sequence[Figure]) -> str:
    cells = [figure.cells() for figure in figures]
    table = markdown([["what", "rows", "seconds", "rows/s", "longest lock, ms", ""], *cells])
    return SECTION.format(
        database=database,
        rows=f"{rows:,}",
        table=table,
        date=datetime.now(UTC).date(),
        machine=machine(),
    )


SECTION = """## Removing at scale, {database}

With {rows} rows, each with a payload of some hundred bytes and a tag; locks are those that a batch
holds until it commits. Readers look fresh entries up, one after the other, on two threads.

{table}

`python -m tests.benchmarks.scale` measures it and writes this section. Measured on {date}, on
{machine}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--database", choices=DATABASE_SERVERS, default="postgres")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--doomed", type=int, default=100_000, help="rows with the tag")
    parser.add_argument("--output", type=Path, help="as docs/benchmarks.md")
    options = parser.parse_args()
    alias, rows = options.database, options.rows
    server_class = DATABASE_SERVERS[alias]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(server_class())
        set_up({server_class: server.url}, directory)
        stack.callback(connections.close_all)
        settings.LLMCACHE = {"CACHE": None, "DATABASE": alias}
        figures = []
        for figure in chain(
            measure_invalidation(alias, rows, options.doomed),
            measure_expiry(alias, rows),
            measure_two_expiries(alias, rows),
        ):
            print(*figure.cells(), sep="; ", flush=True)
            figures.append(figure)
        if options.output:
            put(options.output, section(connections[alias].display_name, rows, figures))


if __name__ == "__main__":
    main()
