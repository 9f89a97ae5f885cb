"""Pages of the admin at scale: ``python -m tests.benchmarks.dashboard --rows 1000000``.

With so many entries, and the ledger of two years in hours, before and after they are added up into
days. It writes how long the server takes for each page, and how many queries that is.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.report import machine, markdown, put
from tests.benchmarks.settings import DATABASE_SERVERS

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
# The alias and the name of each.
DATABASES: Final = {
    "sqlite": ("default", "SQLite"),
    "postgres": ("postgres", "PostgreSQL"),
    "mariadb": ("mariadb", "MariaDB"),
}
NAMESPACES: Final = 20
# The groups of calls that there are in each hour of the year.
GROUPS: Final = [
    (namespace, model, outcome, tier, reason)
    for namespace, model in (("support", "gpt-4.1-mini"), ("tenant:7", "claude-sonnet-4-5"))
    for outcome, tier, reason in (
        ("hit", "hot", ""),
        ("hit", "durable", ""),
        ("stale", "durable", "provider-failed"),
        ("miss", "", ""),
        ("bypass", "", "no-store"),
    )
]
YEAR: Final = timedelta(days=365)
TIMES: Final = 20


@dataclass(frozen=True)
class Page:
    name: str
    address: str


def pages() -> list[Page]:
    today = datetime.now(UTC).date()
    dashboard = "/admin/llmcache/dashboard/"
    return [
        Page("dashboard, 24 hours", f"{dashboard}?period=24h"),
        Page("dashboard, 7 days", f"{dashboard}?period=7d"),
        Page("dashboard, 30 days", f"{dashboard}?period=30d"),
        Page("dashboard, a year", f"{dashboard}?first={today - YEAR}&last={today}"),
    ]


def fill_entries(alias: str, rows: int) -> None:
    """Entries of some namespaces that cost something, and were served some times."""
    from django.db import connections

    from tests.benchmarks.scale import FRESH, analyse, fill

    share = rows // NAMESPACES
    for number in range(NAMESPACES):
        fill(alias, share, first=1 + number * share, expires=FRESH, namespace=f"tenant:{number}")
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "UPDATE llmcache_cacheentry SET cost = 1000 * (id % 4999), hits = id % 97, "
            "size = 300 + id % 9973"
        )
        if connections[alias].vendor == "postgresql":
            cursor.execute("VACUUM llmcache_cacheentry")  # as it does by itself after a while
    analyse(alias)


def fill_ledger() -> None:
    """The hours of a year, and of the one before it that it is compared with."""
    from llmcache.usage import ledger

    dice, now = random.Random(1), datetime.now(UTC)
    for day in range(2 * YEAR.days):
        hours = [now - timedelta(days=day, hours=hour) for hour in range(24)]
        groups = {
            _group(ledger, hour, names): _sums(ledger, dice) for hour in hours for names in GROUPS
        }
        ledger.add(groups)


def _group(ledger: Any, moment: datetime, names: tuple[str, ...]) -> Any:
    namespace, model, outcome, tier, reason = names
    hour = int(moment.timestamp()) // ledger.HOUR * ledger.HOUR
    return ledger.Group(hour, namespace, "openai", model, "shop.Ticket", outcome, tier, reason)


def _sums(ledger: Any, dice: random.Random) -> list[int]:
    return [dice.randrange(1, 1000) for _ in ledger.SUMS]


def measure(page: Page, alias: str) -> tuple[str, int]:
    """How many milliseconds the server takes, half of the times and at most; and the queries."""
    from django.db import connections
    from django.test.utils import CaptureQueriesContext

    client, seconds = _client(), []
    assert client.get(page.address).status_code == 200
    with ExitStack() as stack:
        captured = [
            stack.enter_context(CaptureQueriesContext(connections[name]))
            for name in {"default", alias}
        ]
        client.get(page.address)
    for _ in range(TIMES):
        started = time.perf_counter()
        client.get(page.address)
        seconds.append((time.perf_counter() - started) * 1000)
    return f"{statistics.median(seconds):.0f} ({max(seconds):.0f})", sum(map(len, captured))


def _client() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    user, _ = get_user_model().objects.get_or_create(
        username="admin", is_staff=True, is_superuser=True
    )
    client = Client()
    client.force_login(user)
    return client


def measured(alias: str, rows: int) -> dict[str, tuple[str, int]]:
    """The cells of a column, by page."""
    from llmcache.usage import rollup
    from llmcache.usage.rollup import roll_up_usage

    fill_entries(alias, rows)
    fill_ledger()
    rollup._count_namespaces()
    tell(f"{alias}: {rows} entries are there")
    found = {page.name: measure(page, alias) for page in pages()}
    tell(f"{alias}: {roll_up_usage()} rows of hours added up into days")
    return found | {f"{page.name}, added up": measure(page, alias) for page in pages()[-1:]}


def tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def section(columns: dict[str, dict[str, tuple[str, int]]], rows: int) -> str:
    names = list(next(iter(columns.values())))
    lines = [
        [
            name,
            *(column[name][0] for column in columns.values()),
            str(max(column[name][1] for column in columns.values())),
        ]
        for name in names
    ]
    table = markdown([["page", *columns, "queries"], *lines])
    return SECTION.format(
        table=table,
        rows=f"{rows:,}",
        date=datetime.now(UTC).date(),
        machine=machine(),
    )


SECTION: Final = """## The dashboard

Milliseconds that the server takes for the dashboard with {rows} entries: half of the times,
and at most of 20 times. `python -m tests.benchmarks.dashboard` measures it and writes this section.

{table}

The ledger holds two years of hours, ten rows in each. In the last line they are added up into days
but for the last month, as the task `llmcache.roll_up_usage` leaves them. Queries are those of all
databases together, the session and the user included. Measured on {date}, on {machine}, while it
had other things to do.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.dashboard", description=__doc__
    )
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        for name in DATABASE_SERVERS.keys() & set(options.databases):
            server = stack.enter_context(DATABASE_SERVERS[name]())
            os.environ[f"LLMCACHE_TEST_{name.upper()}"] = server.url
        columns = {}
        for name in options.databases:
            alias = _set_up(DATABASES[name][0])
            columns[DATABASES[name][1]] = measured(alias, options.rows)
        print(section(columns, options.rows))
        if set(options.databases) == set(DATABASES):
            put(PAGE, section(columns, options.rows))


def _set_up(alias: str) -> str:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    for name in {"default", alias}:
        call_command("migrate", database=name, verbosity=0)
    settings.LLMCACHE = {"CACHE": None, "DATABASE": alias}
    return alias


if __name__ == "__main__":
    main()
