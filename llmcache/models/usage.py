"""What is counted.

`UsageHour` is the ledger: what was called and what that saved. `HitDay` is how often an entry was
served on a day, `NamespaceSize` how much there is, and `Dashboard` the page that shows all of it.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from llmcache.models.fields import ExactCharField
from llmcache.values import LONGEST_NAME


class HitDay(models.Model):
    """How often an entry was served on a day, in UTC.

    Not a foreign key: rows of entries that are gone do no harm, since no primary key comes twice,
    and go with their day. So nothing that removes entries has to look for them.
    """

    day = models.DateField(_("day"))
    entry = models.PositiveBigIntegerField(_("entry"), help_text=_("Its primary key."))
    hits = models.PositiveBigIntegerField(_("hits"))

    class Meta:
        verbose_name = _("hits of a day")
        verbose_name_plural = _("hits of days")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=["day", "entry"], name="llmcache_hit_day_unique"),
        )

    def __str__(self) -> str:
        return f"{self.day}: {self.hits}"


class UsageHour(models.Model):
    """The ledger: the calls of one hour that have in common all that is named here, added up.

    Hours that are old are added up further, into days (`hours` is 24 then). Times are in UTC.
    """

    hour = models.DateTimeField(_("hour"), help_text=_("When it began."))
    hours = models.PositiveSmallIntegerField(_("hours"), default=1, help_text=_("1, or 24: a day."))
    day = models.DateField(_("day"), help_text=_("The day of the hour, in UTC."))
    digest = ExactCharField(
        _("digest"), max_length=32, help_text=_("Of the columns from namespace to reason_code.")
    )
    namespace = ExactCharField(_("namespace"), max_length=LONGEST_NAME, blank=True)
    provider = ExactCharField(_("provider"), max_length=LONGEST_NAME, blank=True)
    model = ExactCharField(_("model"), max_length=LONGEST_NAME, blank=True)
    response_model = ExactCharField(_("response model"), max_length=LONGEST_NAME, blank=True)
    outcome = models.CharField(_("outcome"), max_length=16)
    tier = models.CharField(_("tier"), max_length=16, blank=True)
    reason_code = models.CharField(
        _("reason"),
        max_length=40,
        blank=True,
        help_text=_("Why it is not a plain hit or miss: a ReasonCode."),
    )
    calls = models.PositiveBigIntegerField(_("calls"), default=0)
    stored = models.PositiveBigIntegerField(
        _("stored"), default=0, help_text=_("Calls whose answer was stored.")
    )
    unpriced = models.PositiveBigIntegerField(
        _("unpriced"),
        default=0,
        help_text=_("Calls whose cost, saved or spent, is not known. No sum of money has it."),
    )
    input_tokens_saved = models.PositiveBigIntegerField(_("input tokens saved"), default=0)
    output_tokens_saved = models.PositiveBigIntegerField(_("output tokens saved"), default=0)
    cost_saved = models.PositiveBigIntegerField(
        _("cost saved"), default=0, help_text=_("Billionths of a US dollar.")
    )
    microseconds_saved = models.PositiveBigIntegerField(_("microseconds saved"), default=0)
    input_tokens_spent = models.PositiveBigIntegerField(_("input tokens spent"), default=0)
    output_tokens_spent = models.PositiveBigIntegerField(_("output tokens spent"), default=0)
    cost_spent = models.PositiveBigIntegerField(
        _("cost spent"), default=0, help_text=_("Billionths of a US dollar.")
    )
    bytes_stored = models.PositiveBigIntegerField(_("bytes stored"), default=0)

    class Meta:
        verbose_name = _("hour of usage")
        verbose_name_plural = _("hours of usage")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["hour", "hours", "digest"], name="llmcache_usage_unique"
            ),
        )
        indexes = (models.Index(fields=["hours", "day"], name="llmcache_usage_day"),)

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:%M}, {self.outcome}"


class Dashboard(UsageHour):
    """The ledger as a page of the admin, with a permission of its own."""

    class Meta:
        proxy = True
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ("view",)


class NamespaceSize(models.Model):
    """How much was stored in a namespace when that was counted last."""

    namespace = ExactCharField(_("namespace"), max_length=LONGEST_NAME, unique=True)
    entries = models.PositiveBigIntegerField(_("entries"))
    size = models.PositiveBigIntegerField(_("size"), db_index=True, help_text=_("Bytes."))
    counted_at = models.DateTimeField(_("counted"))

    class Meta:
        verbose_name = _("size of a namespace")
        verbose_name_plural = _("sizes of namespaces")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.namespace)
