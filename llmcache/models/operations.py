"""What keeps many processes in step, says how they are, and what is not to come back.

`Lease` is the right to ask the model for one key, where there is no shared hot tier; `Outage` tells
which processes go without a tier at the moment, `TaskRun` when a task was run last. `Invalidation`
is the audit trail, and the proof against answers that come late; `WriteGate` is held by who writes
there alone, and by who stores together with others. `PendingEviction` says which hot copies are
still to be removed, `Epoch` which of them may be served.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from llmcache.models.fields import ExactCharField, Unseen
from llmcache.values import LONGEST_NAME


class Lease(models.Model):
    """The right to ask the model for one key, while there is no shared hot tier to keep it in.

    `token` is the holder's; `released` those of the last holders whose waiters are to ask for
    themselves, because their calls failed or their answers were not to be stored.
    """

    key = ExactCharField(_("key"), max_length=64, unique=True)
    token = models.CharField(_("token"), max_length=32, blank=True)
    released = models.CharField(_("released"), max_length=1000, blank=True)
    expires_at = models.DateTimeField(_("expires"), db_index=True)

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.key:.12}"


class Outage(models.Model):
    """A process that goes without a tier at the moment, because the tier kept failing."""

    process = models.CharField(_("process"), max_length=LONGEST_NAME)
    tier = models.CharField(_("tier"), max_length=16)
    since = models.DateTimeField(_("since"))
    seen_at = models.DateTimeField(_("last seen"))
    error = models.TextField(_("error"), blank=True)

    class Meta:
        verbose_name = _("outage")
        verbose_name_plural = _("outages")
        default_permissions = ("view",)
        constraints = (
            models.UniqueConstraint(fields=["process", "tier"], name="llmcache_outage_unique"),
        )

    def __str__(self) -> str:
        return f"{self.tier} ({self.process})"


class TaskRun(Unseen):
    """The last time that a task was run, by Celery or by a command: `done` rows were dealt with."""

    task = models.CharField(max_length=64, unique=True)
    started_at = models.DateTimeField()
    seconds = models.FloatField()
    done = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True)


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
    # Of one that is done in instalments (see `llmcache.removal.resumable`):
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


class Epoch(Unseen):
    """One row: the epoch of the hot tier, of which all copies are that may be served.

    `servers` are those that hold copies of it: pairs of an address and an identity, which another
    run of the server does not have. `earlier`: pairs of a name and the moment (seconds since 1970)
    when that epoch ended.
    """

    name = models.CharField(max_length=16)
    servers = models.JSONField(default=list)
    earlier = models.JSONField(default=list)
    began_at = models.DateTimeField()


class WriteGate(Unseen):
    """One row. Whoever stores an answer holds it together with others, an invalidation alone.

    (Where the database has other means, advisory locks or a single writer, it is not used.)
    """
