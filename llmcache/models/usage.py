"""What is counted.

`UsageHour` is the ledger: what was called and what that saved. `HitDay` is how often an entry was
served on a day, `NamespaceSize` how much there is, and `Dashboard` the page that shows all of it.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from llmcache.models.fields import ExactCharField, Unseen
from llmcache.values import LONGEST_NAME


class HitDay(Unseen):
    """How often an entry was served on a day, in UTC.

    `entry` is a primary key, not a foreign key: rows of entries that are gone do no harm, since no
    primary key comes twice, and go with their day. So nothing that removes entries has to look for
    them.
    """

    day = models.DateField()
    entry = models.PositiveBigIntegerField()
    hits = models.PositiveBigIntegerField()

    class Meta(Unseen.Meta):
        constraints = (
            models.UniqueConstraint(fields=["day", "entry"], name="llmcache_hit_day_unique"),
        )


class UsageHour(Unseen):
    """The ledger: the calls of one hour that have in common all that is named here, added up.

    Hours that are old are added up further, into days (`hours` is 24 then). Times are in UTC, costs
    in billionths of a US dollar. `digest` is that of the columns from `namespace` to `reason_code`,
    which is a `ReasonCode`, or empty for a plain hit or miss. Calls that were `stored` had their
    answers stored; of those `unpriced`, no sum of money has what they saved or cost.
    """

    hour = models.DateTimeField()
    hours = models.PositiveSmallIntegerField(default=1)
    day = models.DateField()
    digest = ExactCharField(max_length=32)
    namespace = ExactCharField(max_length=LONGEST_NAME, blank=True)
    provider = ExactCharField(max_length=LONGEST_NAME, blank=True)
    model = ExactCharField(max_length=LONGEST_NAME, blank=True)
    response_model = ExactCharField(max_length=LONGEST_NAME, blank=True)
    outcome = models.CharField(max_length=16)
    tier = models.CharField(max_length=16, blank=True)
    reason_code = models.CharField(max_length=40, blank=True)
    calls = models.PositiveBigIntegerField(default=0)
    stored = models.PositiveBigIntegerField(default=0)
    unpriced = models.PositiveBigIntegerField(default=0)
    input_tokens_saved = models.PositiveBigIntegerField(default=0)
    output_tokens_saved = models.PositiveBigIntegerField(default=0)
    cost_saved = models.PositiveBigIntegerField(default=0)
    microseconds_saved = models.PositiveBigIntegerField(default=0)
    input_tokens_spent = models.PositiveBigIntegerField(default=0)
    output_tokens_spent = models.PositiveBigIntegerField(default=0)
    cost_spent = models.PositiveBigIntegerField(default=0)
    bytes_stored = models.PositiveBigIntegerField(default=0)

    class Meta(Unseen.Meta):
        constraints = (
            models.UniqueConstraint(
                fields=["hour", "hours", "digest"], name="llmcache_usage_unique"
            ),
        )
        indexes = (models.Index(fields=["hours", "day"], name="llmcache_usage_day"),)


class Dashboard(UsageHour):
    """The ledger as a page of the admin, with a permission of its own."""

    class Meta:
        proxy = True
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ("view",)


class NamespaceSize(Unseen):
    """How many entries, and bytes, were stored in a namespace when that was counted last."""

    namespace = ExactCharField(max_length=LONGEST_NAME, unique=True)
    entries = models.PositiveBigIntegerField()
    size = models.PositiveBigIntegerField(db_index=True)
    counted_at = models.DateTimeField()
