"""Where the database cache keeps its table."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Model


class HotTierRouter:
    """Puts the table of Django's database cache next to the rows that it holds copies of.

    On SQLite this is what keeps the hot tier quick: in the site's own file, a copy would wait for
    the lock of whatever transaction the site is in, and be rolled back with it.
    """

    app_label = "django_cache"

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return self._database() if model._meta.app_label == self.app_label else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == self._database() if app_label == self.app_label else None

    def _database(self) -> str:
        return settings.LLMCACHE.get("DATABASE") or "default"
