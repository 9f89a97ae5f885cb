"""The store: a hot tier on a Django cache alias in front of rows in a database.

`lookup` finds an entry through the tiers and `save` stores one in them; each has an `a*` twin.
"""

from llmcache.store.lookups import (
    alookup,
    alookup_many,
    lookup,
    lookup_many,
    peek,
    peek_before_asking,
    refuse,
)
from llmcache.store.records import Draft, Found, Missing
from llmcache.store.saving import (
    ageneration,
    asave,
    asave_many,
    copy_of,
    generation,
    save,
    save_many,
)

__all__ = [
    "Draft",
    "Found",
    "Missing",
    "ageneration",
    "alookup",
    "alookup_many",
    "asave",
    "asave_many",
    "copy_of",
    "generation",
    "lookup",
    "lookup_many",
    "peek",
    "peek_before_asking",
    "refuse",
    "save",
    "save_many",
]
