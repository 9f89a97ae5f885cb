"""The admin's pages at scale: ``python -m tests.benchmarks.pages --database postgres``.

On a server of its own, with a million entries of many namespaces, models, ages and prompts: how
long the server takes for each page, and how many queries. It prints a table; ``--output`` puts it
into the page of the benchmarks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tests.benchmarks import scale
from tests.benchmarks.report import load, machine, markdown, put
from tests.benchmarks.settings import DATABASE_SERVERS, set_up

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
LIST = "/admin/llmcache/cacheentry/"
ROUNDS = 7
# Of the entries, one has "crimson" in its prompt, each of a thousand "amber", half of all "violet".
WORDS = (
    "'read what the customer writes and fill in the ticket order ' || id || ' '"
    " || CASE WHEN id % 2 = 0 THEN 'violet ' ELSE 'green ' END"
    " || CASE WHEN id % 1000 = 0 THEN 'amber ' ELSE 'grey ' END"
    " || CASE WHEN id % 100 = 0 THEN 'silver ' ELSE 'dull ' END"
    " || CASE WHEN id = 4711 THEN 'crimson ' ELSE '' END"
    " || CASE WHEN id < {rows} / 10 THEN 'ancient ' ELSE 'new ' END"
    " || md5(id::text) || ' ' || repeat('the bicycle has a broken brake and a bell ', 8)"
)
# For each database: how ages, expiries and sizes are spread; columns that depend on the number.
SPREAD = {
    "postgresql": (
        "created_at = now() - make_interval(secs => {rows} - id), "
        "expires_at = now() + make_interval(secs => (id * 7919) % 5184000 - 1000), "
        "stale_until = now() + make_interval(secs => (id * 7919) % 5184000 - 1000)"
    ),
    "mysql": (
        "created_at = utc_timestamp(6) - INTERVAL ({rows} - id) SECOND, "
        "expires_at = utc_timestamp(6) + INTERVAL ((id * 7919) % 5184000 - 1000) SECOND, "
        "stale_until = utc_timestamp(6) + INTERVAL ((id * 7919) % 5184000 - 1000) SECOND"
    ),
}
# Half of all in one namespace, and the other half in a thousand.
COLUMNS = (
    "namespace = CASE WHEN id % 2 = 0 THEN 'support' ELSE {tenant} END, "
    "model = CASE WHEN id < {rows} / 10 THEN 'of long ago' WHEN id % 10 < 7 THEN 'gpt-4.1-mini' "
    "WHEN id % 10 < 9 THEN 'claude-sonnet-4-5' ELSE 'our-own-llama' END, "
    "response_model = CASE WHEN id % 3 = 0 THEN 'shop.Ticket' ELSE 'shop.Invoice' END, "
    "size = 300 + (id * 31) % 5000, hits = (id * 37) % 211, cost = 1000 * (id % 977), "
    "digests = {digests}"
)
VALUES = {
    "postgresql": {
        "tenant": "'tenant ' || id % 1000",
        "digests": "jsonb_build_object('messages', md5(id::text), 'parameters', 'p', 'model', 'm')",
    },
    "mysql": {
        "tenant": "concat('tenant ', id % 1000)",
        "digests": "json_object('messages', md5(id), 'parameters', 'p', 'model', 'm')",
    },
}


@dataclass
class Subject:
    """A page, and what was measured of it; times in seconds."""

    name: str
    address: str
    seconds: list[float] = field(default_factory=list)
    queries: int = 0


def fill(alias: str, rows: int) -> None:
    """Make the entries, by a few statements."""
    scale.fill(alias, rows, tag="some")
    vendor = connections[alias].vendor
    columns = [COLUMNS.format(**VALUES[vendor], rows=rows), SPREAD[vendor].format(rows=rows)]
    if vendor == "postgresql":
        columns.append(f"words = to_tsvector('simple', {WORDS.format(rows=rows)})")
    with connections[alias].cursor() as cursor:
        cursor.execute(f"UPDATE llmcache_cacheentry SET {', '.join(columns)}")
        # Each entry has one of a hundred tags, and every tenth one that they share.
        tag = "concat('customer:', entry_id % 10000)"
        cursor.execute(
            f"UPDATE llmcache_entrytag SET tag = CASE WHEN entry_id % 10 = 0 THEN 'many' "
            f"ELSE {tag} END"
        )
        if vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
    scale.analyse(alias)


def subjects(alias: str) -> Iterator[Subject]:
    """The pages: of the list, with each filter, order and search; of an entry; of invalidating."""
    from tests.browser import shop

    row = shop.store(
        "an entry",
        shop.asking("What is broken here?", photo=True),
        {"title": "Broken rear lamp", "next_steps": ["send a lamp"]},
        namespace="support",
        model="gpt-4.1-mini",
        response_model="shop.Ticket",
        tags=["hardware"],
    )
    yield Subject("list", LIST)
    yield Subject("list, page 200", f"{LIST}?p=200")
    for name, query in {
        "half of all entries": "namespace=support",
        "a thousandth": "namespace=tenant 7",
        "nothing": "namespace=nobody",
        "a model": "model=our-own-llama",
        "a response model": "response_model=shop.Ticket",
        "fresh": "state=fresh",
        "expired": "state=expired",
        "never expires": "state=never",
        "pinned": "state=pinned",
        "older than 30 days": "age=older",
        "past hour": "age=hour",
        "four at once": "namespace=tenant 7&model=our-own-llama&state=fresh&age=month",
    }.items():
        yield Subject(f"filter: {name}", f"{LIST}?{query}")
    for number, name in enumerate(["key", "namespace", "model", "response model"], start=1):
        yield Subject(f"sort: {name}", f"{LIST}?o={number}")
    for number, name in enumerate(["saved", "size", "age", "expiry"], start=6):
        yield Subject(f"sort: {name}", f"{LIST}?o=-{number}")
    yield Subject("sort: saved, of a thousandth", f"{LIST}?o=-6&namespace=tenant 7")
    for number, name in enumerate(["saved", "size", "age", "expiry"], start=6):
        address = f"{LIST}?o=-{number}&model=of long ago"
        yield Subject(f"sort: {name}, of the oldest tenth", address)
    yield Subject("sort: expiry, of half", f"{LIST}?o=8&namespace=support")
    for name, term in {
        "a key": row.key[:12],
        "one digit of a key": row.key[:1],
        "a namespace": "tenant 7",
        "half of all, by namespace": "supp",
        "a model": "claude",
        "a tag of 100,000": "tag:many",
        "a tag of 90": "tag:customer:4711",
        "no such name": "zzz",
        "a word of one prompt": "crimson",
        "a word of 1,000": "amber",
        "a word of 10,000": "silver",
        "a word of half": "violet",
        "a word of all": "ticket",
        "a word of the oldest tenth": "ancient",
        "a phrase of all": '"broken brake"',
        "three words, one rare": "ticket violet crimson",
    }.items():
        yield Subject(f"search: {name}", f"{LIST}?q={term}")
    yield Subject("an entry", f"{LIST}{row.pk}/change/")
    yield Subject("invalidating: the form", "/admin/llmcache/invalidation/add/")
    yield Subject("invalidating: the audit", "/admin/llmcache/invalidation/")


def measure(client: Any, alias: str, subject: Subject) -> None:
    from django.test.utils import CaptureQueriesContext

    # The session and the user are in the other database.
    with (
        CaptureQueriesContext(connections[alias]) as own,
        CaptureQueriesContext(connections["default"]) as other,
    ):
        assert client.get(subject.address).status_code == 200, subject.address
    subject.queries = len(own) + len(other)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        client.get(subject.address)
        subject.seconds.append(time.perf_counter() - started)


def table(measured: list[Subject]) -> str:
    lines = [
        [
            subject.name,
            f"{statistics.median(subject.seconds) * 1000:.0f}",
            f"{max(subject.seconds) * 1000:.0f}",
            str(subject.queries),
        ]
        for subject in measured
    ]
    return markdown([["page", "median, ms", "slowest, ms", "queries"], *lines])


def log_in() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


SECTION = """\
## The admin

Server time of the admin's pages at {rows:,} entries on {database}: half of them in one namespace,
the other half in a thousand; prompts of about 80 words. {rounds} times each, after one that
does not count. `python -m tests.benchmarks.pages` measures it.

Hardest is a word that is in a hundred thousand prompts, all of them older than the nine hundred
thousand others: the newest of them are wanted first, and the database goes by all that are newer.

{table}

{machine}, load {load}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pages", description=__doc__)
    parser.add_argument("--database", choices=DATABASE_SERVERS, default="postgres")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, help="as docs/benchmarks.md")
    options = parser.parse_args()
    server_class = DATABASE_SERVERS[options.database]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(server_class())
        set_up({server_class: server.url}, directory, site=True)
        stack.callback(connections.close_all)
        settings.LLMCACHE = {"CACHE": None, "DATABASE": options.database}
        call_command("migrate", verbosity=0)
        fill(options.database, options.rows)
        client, measured = log_in(), list(subjects(options.database))
        for subject in measured:
            measure(client, options.database, subject)
        results = table(measured)
        print(results, flush=True)
        if options.output:
            facts = {"rows": options.rows, "database": connections[options.database].display_name}
            facts |= {"rounds": ROUNDS, "machine": machine(), "load": load()}
            put(options.output, SECTION.format(table=results, **facts))


if __name__ == "__main__":
    main()
