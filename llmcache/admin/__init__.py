"""The admin pages: what is stored, what was asked and answered, and a way to remove it."""

from __future__ import annotations

from llmcache.admin.dashboard import DashboardAdmin
from llmcache.admin.entries.admin import CacheEntryAdmin
from llmcache.admin.health import LeaseAdmin, OutageAdmin
from llmcache.admin.invalidations import InvalidationAdmin, PendingEvictionAdmin

__all__ = [
    "CacheEntryAdmin",
    "DashboardAdmin",
    "InvalidationAdmin",
    "LeaseAdmin",
    "OutageAdmin",
    "PendingEvictionAdmin",
]
