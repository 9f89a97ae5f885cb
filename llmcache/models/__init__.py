"""What is stored: the entries, what keeps many processes in step, and what is counted."""

from llmcache.models.entries import CacheEntry, CacheEntryQuerySet, EntryPart, EntryTag, Proposal
from llmcache.models.operations import (
    Epoch,
    Invalidation,
    Lease,
    Outage,
    PendingEviction,
    TaskRun,
    WriteGate,
)
from llmcache.models.usage import Dashboard, HitDay, NamespaceSize, UsageHour

__all__ = [
    "CacheEntry",
    "CacheEntryQuerySet",
    "Dashboard",
    "EntryPart",
    "EntryTag",
    "Epoch",
    "HitDay",
    "Invalidation",
    "Lease",
    "NamespaceSize",
    "Outage",
    "PendingEviction",
    "Proposal",
    "TaskRun",
    "UsageHour",
    "WriteGate",
]
