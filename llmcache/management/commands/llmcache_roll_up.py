"""``manage.py llmcache_roll_up``: what the task `llmcache.roll_up_usage` does, for cron."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from llmcache.management.errors import failing_cleanly
from llmcache.usage.rollup import roll_up_usage


class Command(BaseCommand):
    help = (
        "Adds the hours of the ledger that are more than a month ago up into days, and counts how "
        "much is stored in each namespace. For cron, where there is no Celery."
    )

    @failing_cleanly()
    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{roll_up_usage()} rows of hours became part of a day.")
