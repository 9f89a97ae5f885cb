"""How the tiers are: who goes without the hot tier, and what is left to do because of it."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import Count, Min
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin.base import ReadOnlyAdmin
from llmcache.background.transactions import database_alias
from llmcache.models import Lease, Outage, PendingEviction
from llmcache.outcomes import Tier
from llmcache.resilience import outages

# So many batches of keys are counted for the list of entries, which is not to load them all.
MOST_BATCHES: Final = 10


@admin.register(Outage)
class OutageAdmin(ReadOnlyAdmin):
    """Processes that go without a tier."""

    list_display = ("process", "tier", "since", "seen_at", "state", "error")
    fields = list_display

    @admin.display(description=gettext_lazy("state"))
    def state(self, outage: Outage) -> str:
        is_there = outage.seen_at > timezone.now() - outages.GONE_AFTER
        return _("out") if is_there else _("not heard of any more")


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    """Who is asking the model, where leases are kept in rows. (Tokens are nobody's business.)"""

    list_display = ("__str__", "state", "expires_at")
    fields = ("key", "state", "expires_at")

    @admin.display(description=gettext_lazy("state"))
    def state(self, lease: Lease) -> str:
        if not lease.token:
            return _("released")
        return _("held") if lease.expires_at > timezone.now() else _("expired")


def read_trouble() -> dict[str, Any] | None:
    """What the list of entries says above them; None when all is well. In two queries."""
    hot = outages.current().filter(tier=Tier.HOT)
    out = hot.aggregate(without_hot_tier=Count("pk"), since=Min("since"))
    # (one more than are counted; the last to end first)
    pending = PendingEviction.objects.using(database_alias()).order_by("-until")
    batches = list(pending.values_list("until", "keys")[: MOST_BATCHES + 1])
    if not (batches or out["without_hot_tier"]):
        return None
    return out | {
        "pending_copies": sum(len(keys) for _until, keys in batches[:MOST_BATCHES]),
        "are_more": len(batches) > MOST_BATCHES,
        "gone_by": batches[0][0] if batches else None,
    }
