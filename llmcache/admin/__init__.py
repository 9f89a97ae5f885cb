"""The admin pages: what is stored, what was asked and answered, and a way to remove it."""

from __future__ import annotations

from django.contrib import admin

from llmcache.admin.entries import CacheEntryAdmin
from llmcache.models import CacheEntry

__all__ = ["CacheEntryAdmin"]

admin.site.register(CacheEntry, CacheEntryAdmin)
