"""The Django app: registers the system checks, and what rows that go take along.

It imports the hot tier's backend, too.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LLMCacheConfig(AppConfig):
    name = "llmcache"
    verbose_name = _("LLM cache")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from llmcache import checks  # noqa: F401  # needs the registry that is ready now
        from llmcache.store import deletions
        from llmcache.store.hot import aliases

        deletions.watch(self)
        aliases.prepare()
