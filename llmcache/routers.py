"""A database router that keeps the cache's rows in ``LLMCACHE["DATABASE"]``."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from llmcache.conf import settings

APP_LABEL = "llmcache"


class LLMCacheRouter:
    """Sends the tables of llmcache to their database, and says nothing about other apps.

    ``DATABASE_ROUTERS = ["llmcache.routers.LLMCacheRouter"]``, then
    ``manage.py migrate llmcache --database <alias>``.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return settings.database if model._meta.app_label == APP_LABEL else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        if app_label != APP_LABEL or settings.database is None:
            return None
        return db == settings.database
