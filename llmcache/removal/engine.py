"""Removing what an invalidation means: one way for who begins it and for who carries it on.

The rows go first, window by window and batch by batch; after each batch, their hot copies. When no
row is left, the copies go that may have lost their rows otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from llmcache.background import transactions
from llmcache.outcomes import Tier
from llmcache.removal import audit
from llmcache.removal.criteria import KEYS_PER_QUERY, Criteria, in_parts
from llmcache.resilience.failsafe import failing_safe
from llmcache.store import batches, evictions, local
from llmcache.store.rows.tier import Selection

# The most rows that are removed in one transaction.
BATCH_ROWS: Final = 1000


@dataclass(slots=True)
class Removal:
    """What is to be removed, from where on, and what has become of it so far.

    `pk` is that of its row in the audit trail, and up to the primary key `reached` all is removed.
    """

    criteria: Criteria
    selections: Sequence[Selection]
    pk: int | None = None
    reached: int = 0
    entries: int = 0
    #: The tiers that are not done.
    pending: set[Tier] = field(default_factory=set)
    _had_rows: set[str] = field(default_factory=set)

    def carry_out(self) -> Iterator[batches.Batch]:
        """Remove rows and their copies, once it is written down; each batch is done when it comes.

        Raises what the database raises.
        """
        for batch in self._of_rows():
            self.entries += batch.removed
            self.pending |= evictions.evict_when_committed(batch.keys, batch.recorded)
            self._had_rows.update(batch.keys)
            yield batch

    def end(self) -> None:
        """Remove what no row leads to: when all batches are done."""
        self.pending |= self._evict_without_rows()
        if transactions.caller_is_the_writer():
            # (also where it found no row: what waits to be written would come after a rollback)
            self.pending.add(Tier.DURABLE)
        self.end_here()

    def finish(self, pk: int, *, entries: int | None = None) -> bool:
        """Write down how it ended (see `audit.finish`), and whether copies are left; never raises.

        Also of rows that others have removed: mostly there are none, and one statement will do.
        """
        with failing_safe(Tier.DURABLE, "record an invalidation in"):
            may_be_all = not self.pending and not evictions.may_come_back()
            if may_be_all and audit.finish(pk, (), entries=entries, if_no_copies=True):
                return True
        if not _all_copies_are_gone():
            self.pending.add(Tier.HOT)
        with failing_safe(Tier.DURABLE, "record an invalidation in"):
            return audit.finish(pk, self.pending, entries=entries)
        return False

    def end_here(self) -> None:
        """Remove the copies in this process."""
        keys = self.criteria.keys
        local.clear() if keys is None else local.drop(keys)
        if local.ttl():
            self.pending.add(Tier.LOCAL)

    def _of_rows(self) -> Iterator[batches.Batch]:
        pace, newest = batches.Pace(most=BATCH_ROWS), audit.newest(self.pk or 0)
        for select in self.selections:
            for window in batches.windows(select, newest, self.reached):
                yield from batches.remove_with_parts(window, pace)
                self.reached = max(window.seen)
            self.reached = 0
        if self.criteria.keys and self.criteria == Criteria(keys=self.criteria.keys):
            # Also what was made of those that are not stored any more.
            yield from batches.remove_made_of(sorted(self.criteria.keys - self._had_rows), pace)

    def _evict_without_rows(self) -> set[Tier]:
        """Remove the copies of what is named, also where somebody has removed the rows.

        That is possible for keys, and for everything. The tiers that are not done.
        """
        if self.criteria == Criteria():
            return evictions.evict_without_rows(evictions.ALL)
        left = sorted((self.criteria.keys or frozenset()) - self._had_rows)
        pending = set[Tier]()
        for some in in_parts(left, KEYS_PER_QUERY):
            pending |= evictions.evict_without_rows(some)
        return pending


def _all_copies_are_gone() -> bool:
    """Also of rows that another process has removed, which may not have come to the copies yet.

    In a caller's transaction they wait for its end, as the rows do.
    """
    if evictions.may_come_back():
        return False
    return transactions.caller_is_the_writer() or evictions.finish_all_evictions()
