"""What keeps many processes in step, and says how they are.

`Lease` is the right to ask the model for one key, where there is no shared hot tier; `Outage` tells
which processes go without a tier at the moment, `TaskRun` when a task was run last.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from llmcache.models.fields import ExactCharField
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


class TaskRun(models.Model):
    """The last time that a task was run, by Celery or by a command."""

    task = models.CharField(_("task"), max_length=64, unique=True)
    started_at = models.DateTimeField(_("started"))
    seconds = models.FloatField(_("seconds"))
    done = models.PositiveBigIntegerField(
        _("done"), default=0, help_text=_("How many rows it has dealt with.")
    )
    error = models.TextField(_("error"), blank=True)

    class Meta:
        verbose_name = _("run of a task")
        verbose_name_plural = _("runs of tasks")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.task)
