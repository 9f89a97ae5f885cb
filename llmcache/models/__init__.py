"""What is stored: the entries, and what keeps many processes in step.

`entries` holds the answers, `removal` what was removed and must not come back, `operations` what
many processes tell each other, `usage` what is counted.
"""

from llmcache.models.entries import CacheEntry, CacheEntryQuerySet, EntryPart, EntryTag, Proposal
from llmcache.models.operations import Lease, Outage, TaskRun
from llmcache.models.removal import Epoch, Invalidation, PendingEviction, WriteGate
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
