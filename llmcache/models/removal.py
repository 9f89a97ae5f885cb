"""What was removed, and is not to come back.

`Invalidation` is the audit trail, and the proof against answers that come late; `WriteGate` is held
by who writes there alone, and by who stores together with others. `PendingEviction` says which hot
copies are still to be removed, `Epoch` which of them may be served.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from llmcache.values import LONGEST_NAME


class Invalidation(models.Model):
    """One invalidation: who removed what, when, and how much it was.

    A row is written before anything is removed. An answer whose question was asked before that is
    not stored any more, if it fits the criteria.
    """

    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"), null=True)
    by = models.CharField(_("by"), max_length=LONGEST_NAME, blank=True)
    criteria = models.JSONField(_("criteria"))
    entries = models.PositiveBigIntegerField(_("entries"), default=0)
    pending = models.CharField(
        _("pending"),
        max_length=LONGEST_NAME,
        blank=True,
        help_text=_("The tiers that were not done when it returned."),
    )
    # Of one that is done in instalments (see `llmcache.removal.claims`):
    total = models.PositiveBigIntegerField(
        _("total"), null=True, help_text=_("How many entries there were to remove.")
    )
    newest = models.PositiveBigIntegerField(
        _("newest"), null=True, help_text=_("The primary key of the newest entry to remove.")
    )
    reached = models.PositiveBigIntegerField(
        _("reached"), default=0, help_text=_("The primary key up to which it is done.")
    )
    carrier = models.CharField(_("carrier"), max_length=32, blank=True)
    carried_until = models.DateTimeField(_("carried until"), null=True)

    class Meta:
        verbose_name = _("invalidation")
        verbose_name_plural = _("invalidations")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S}"


class PendingEviction(models.Model):
    """Hot copies whose rows are gone, and which are still to be removed.

    Written with the removal of the rows, and deleted once the hot tier has done its part. After
    `until` no such copy lives any more. Before `arrives_until` one that was sent, and whose arrival
    nobody waited for, may still come.
    """

    keys = models.JSONField(_("keys"))
    created_at = models.DateTimeField(_("created"))
    until = models.DateTimeField(_("until"))
    arrives_until = models.DateTimeField(
        _("arrives until"), null=True, help_text=_("Until then, it may have to be removed again.")
    )

    class Meta:
        verbose_name = _("pending eviction")
        verbose_name_plural = _("pending evictions")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.pk)


class Epoch(models.Model):
    """One row: the epoch of the hot tier, of which all copies are that may be served.

    `servers` are those that hold copies of it: pairs of an address and an identity, which another
    run of the server does not have. `earlier`: pairs of a name and the moment (seconds since 1970)
    when that epoch ended.
    """

    name = models.CharField(_("name"), max_length=16)
    servers = models.JSONField(_("servers"), default=list)
    earlier = models.JSONField(_("earlier"), default=list)
    began_at = models.DateTimeField(_("began"))

    class Meta:
        verbose_name = _("epoch")
        verbose_name_plural = _("epochs")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.name)


class WriteGate(models.Model):
    """One row. Whoever stores an answer holds it together with others, an invalidation alone.

    (Where the database has other means, advisory locks or a single writer, it is not used.)
    """

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)
