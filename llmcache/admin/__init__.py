"""The admin pages: what is stored, what was asked and answered, and a way to remove it."""

from __future__ import annotations

from django.contrib import admin

from llmcache.admin.dashboard import DashboardAdmin
from llmcache.admin.entries.admin import CacheEntryAdmin
from llmcache.admin.health import LeaseAdmin, OutageAdmin
from llmcache.admin.invalidations.list import InvalidationAdmin, PendingEvictionAdmin
from llmcache.models import CacheEntry, Dashboard, Invalidation, Lease, Outage, PendingEviction

__all__ = [
    "CacheEntryAdmin",
    "DashboardAdmin",
    "InvalidationAdmin",
    "LeaseAdmin",
    "OutageAdmin",
    "PendingEvictionAdmin",
]

admin.site.register(CacheEntry, CacheEntryAdmin)
admin.site.register(Invalidation, InvalidationAdmin)
admin.site.register(PendingEviction, PendingEvictionAdmin)
admin.site.register(Outage, OutageAdmin)
admin.site.register(Lease, LeaseAdmin)
admin.site.register(Dashboard, DashboardAdmin)
