"""``manage.py llmcache_expire``: remove what has expired."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmcache.exceptions import InvalidArgument
from llmcache.management.errors import failing_cleanly
from llmcache.removal import expire


class Command(BaseCommand):
    help = "Removes the entries that have expired. Safe to run at any time, and twice at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch-size",
            type=int,
            default=expire.BATCH_ROWS,
            help="Rows in one transaction, 1 to %(default)s (default: %(default)s).",
        )
        parser.add_argument(
            "--max-batches", type=int, help="Stop after so many batches (default: no limit)."
        )
        parser.add_argument("--dry-run", action="store_true", help="Count, and remove nothing.")

    @failing_cleanly()
    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        try:
            entries = expire.expire_entries(
                batch_size=options["batch_size"],
                max_batches=options["max_batches"],
                dry_run=dry_run,
            )
        except InvalidArgument as error:
            raise CommandError(str(error)) from error
        verb = "would be removed" if dry_run else "removed"
        self.stdout.write(f"{entries} expired {'entry' if entries == 1 else 'entries'} {verb}.")
