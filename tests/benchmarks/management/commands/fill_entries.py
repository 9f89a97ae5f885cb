"""Fill a store with as many entries as one likes, to see what becomes of it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmcache.background.transactions import database_alias
from tests.benchmarks import scale


class Command(BaseCommand):
    help = (
        "Add entries that nobody has asked for, each with a payload of random bytes and a tag. "
        "They are made inside the database, by statements of a hundred thousand each."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rows", type=int, help="how many entries")
        parser.add_argument("--size", type=int, default=512, help="bytes of a payload (512)")
        parser.add_argument("--tag", default="filling", help="a label on each (filling)")
        parser.add_argument("--days", type=float, default=1.0, help="until they expire (1)")

    def handle(
        self, *args: Any, rows: int, size: int, tag: str, days: float, **options: Any
    ) -> None:
        if rows < 1:
            raise CommandError("Give the number of entries: one or more.")
        alias = database_alias()
        for done in scale.fill_in_parts(
            alias, rows, expires=days * scale.DAY, size=size, namespace="filling", tag=tag
        ):
            self.stdout.write(f"{done:,} of {rows:,} entries")
        scale.analyse(alias)
