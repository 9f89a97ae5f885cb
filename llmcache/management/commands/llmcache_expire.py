"""``manage.py llmcache_expire``: remove what has expired."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from llmcache.management.base import LLMCacheCommand, counted
from llmcache.removal import expire


class Command(LLMCacheCommand):
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

    def handle(self, *args: Any, **options: Any) -> None:
        names = ("batch_size", "max_batches", "dry_run")
        entries = expire.expire_entries(**{name: options[name] for name in names})
        verb = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{counted(entries, 'expired entry', 'expired entries')} {verb}.")
