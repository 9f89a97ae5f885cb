"""``manage.py llmcache_roll_up``: what the task `llmcache.roll_up_usage` does, for cron."""

from __future__ import annotations

from typing import Any

from llmcache.management.base import LLMCacheCommand
from llmcache.usage.rollup import roll_up_usage


class Command(LLMCacheCommand):
    help = (
        "Adds the hours of the ledger that are more than a month ago up into days, and counts how "
        "much is stored in each namespace. For cron, where there is no Celery."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{roll_up_usage()} rows of hours became part of a day.")
