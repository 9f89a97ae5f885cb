"""What is stored: the entries and their labels, and what keeps many processes in step.

`CacheEntry` is one answer, `EntryTag` a label on it, `HitDay` how often it was served on a day,
`Proposal` a new answer that somebody is to look at first. `Invalidation` is the audit trail, and
the proof against answers that come late; `PendingEviction` says which hot copies are still to be
removed; `Lease` is the right to ask the model for one key, where there is no shared hot tier;
`Outage` tells which processes go without a tier at the moment.

`UsageHour` is the ledger: what was called and what that saved. `NamespaceSize` and `TaskRun` are
what the tasks leave behind for people to read, and `Dashboard` is the page that shows all of it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmcache.conf import LONGEST_NAME
from llmcache.fields import WordsField, WordsIndex


class ExactCharField(models.CharField):  # type: ignore[type-arg]
    """A CharField that compares to the letter on every database.

    MariaDB and MySQL compare text without regard to case, accents and trailing spaces unless told
    otherwise, and would remove the entries of ``"Acme"`` with those of ``"acme "``. All databases
    sort it alike, too.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        elif connection.vendor == "postgresql":
            # By code points, as the others: so an index finds values by their beginning.
            parameters["collation"] = "C"
        return parameters


class CacheEntryQuerySet(models.QuerySet["CacheEntry"]):
    """The words in which the rest of llmcache asks for rows."""

    def fresh(self, at: datetime | None = None) -> CacheEntryQuerySet:
        return self.exclude(expires_at__lte=at or timezone.now())

    def expired(self, at: datetime | None = None) -> CacheEntryQuerySet:
        return self.filter(expires_at__lte=at or timezone.now())

    def outlived(self, at: datetime | None = None) -> CacheEntryQuerySet:
        """Entries that not even a stale answer may come from any more."""
        return self.filter(stale_until__lte=at or timezone.now())

    def in_namespace(self, namespace: str) -> CacheEntryQuerySet:
        return self.filter(namespace=namespace)

    def tagged(self, tags: Collection[str]) -> CacheEntryQuerySet:
        """Entries that carry at least one of `tags`."""
        return self.filter(pk__in=EntryTag.objects.filter(tag__in=tags).values("entry_id"))

    def light(self) -> CacheEntryQuerySet:
        """Without the columns that may be large: they are loaded when looked at."""
        return self.defer("payload", "request", "digests", "words")


class CacheEntry(models.Model):
    """One stored answer with what is known about it."""

    key = ExactCharField(_("key"), max_length=64, unique=True)
    namespace = ExactCharField(_("namespace"), max_length=LONGEST_NAME)
    provider = ExactCharField(_("provider"), max_length=LONGEST_NAME, blank=True)
    endpoint = models.TextField(_("endpoint"), blank=True)
    model = ExactCharField(_("model"), max_length=LONGEST_NAME, blank=True)
    mode = ExactCharField(_("mode"), max_length=LONGEST_NAME, blank=True)
    response_model = ExactCharField(
        _("response model"),
        max_length=LONGEST_NAME,
        blank=True,
        help_text=_("Module and name of the class."),
    )
    digests = models.JSONField(
        _("digests"), default=dict, help_text=_("SHA-256 of each part of the request.")
    )
    request = models.BinaryField(
        _("request"), null=True, help_text=_("The request in an envelope, when it is stored.")
    )
    payload = models.BinaryField(_("payload"), help_text=_("The answer in an envelope."))
    size = models.PositiveIntegerField(_("size"), help_text=_("Bytes of the payload at rest."))
    input_tokens = models.PositiveIntegerField(_("input tokens"), null=True)
    output_tokens = models.PositiveIntegerField(_("output tokens"), null=True)
    cost = models.BigIntegerField(
        _("cost"),
        null=True,
        help_text=_("Billionths of a US dollar, at the prices of then; none: no price is known."),
    )
    latency = models.FloatField(
        _("latency"), null=True, help_text=_("Seconds that the model took to answer.")
    )
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    stale_until = models.DateTimeField(
        _("stale until"),
        null=True,
        blank=True,
        help_text=_("Kept so long after it has expired, for stale answers (RFC 5861)."),
    )
    last_hit_at = models.DateTimeField(_("last hit"), null=True)
    hits = models.PositiveBigIntegerField(_("hits"), default=0)
    saved = models.GeneratedField(
        expression=F("hits") * F("cost"),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
        verbose_name=_("saved"),
        help_text=_("What its hits would have cost, in billionths of a US dollar."),
    )
    pinned = models.BooleanField(
        _("pinned"),
        default=False,
        db_default=False,
        help_text=_("It never expires, nor does what replaces it."),
    )
    words = WordsField(
        _("words"), null=True, help_text=_("Of the prompt, where it can be searched.")
    )

    objects = CacheEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("cache entry")
        verbose_name_plural = _("cache entries")
        default_permissions = ("view",)
        permissions = (
            ("view_content_cacheentry", _("Can read prompts and answers")),
            ("invalidate_cacheentry", _("Can invalidate, pin, time and tag cache entries")),
            ("ask_again_cacheentry", _("Can ask the model again for cache entries")),
            ("export_cacheentry", _("Can export cache entries")),
        )
        indexes = (
            models.Index(fields=["expires_at"], name="llmcache_entry_expires"),
            models.Index(fields=["stale_until"], name="llmcache_entry_stale"),
            models.Index(fields=["created_at"], name="llmcache_entry_created"),
            models.Index(fields=["namespace", "created_at"], name="llmcache_entry_namespace"),
            models.Index(fields=["model", "created_at"], name="llmcache_entry_model"),
            models.Index(fields=["response_model", "created_at"], name="llmcache_entry_response"),
            models.Index(fields=["saved"], name="llmcache_entry_saved"),
            models.Index(fields=["size"], name="llmcache_entry_size"),
            WordsIndex(fields=["words"], name="llmcache_entry_words"),
            # (to add up the sizes without reading the rows)
            models.Index(fields=["namespace", "size"], name="llmcache_entry_space"),
        )

    def __str__(self) -> str:
        return f"{self.key:.12}"

    @property
    def part_digests(self) -> dict[str, str]:
        """SHA-256 of each part of the request; empty where the column holds anything else."""
        return self.digests if isinstance(self.digests, dict) else {}

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class EntryTag(models.Model):
    """A label on an entry, for removing groups."""

    entry = models.ForeignKey(CacheEntry, on_delete=models.CASCADE, related_name="tags")
    tag = ExactCharField(_("tag"), max_length=LONGEST_NAME)

    class Meta:
        verbose_name = _("tag")
        verbose_name_plural = _("tags")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=["tag", "entry"], name="llmcache_tag_entry_unique"),
        )

    def __str__(self) -> str:
        return str(self.tag)


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


class Proposal(models.Model):
    """A new answer that waits to take the place of the one that an entry has.

    `since` tells which invalidations had begun before the model was asked: an answer that comes
    after one is not stored.
    """

    key = ExactCharField(_("key"), max_length=64, db_index=True)
    payload = models.BinaryField(_("payload"), help_text=_("The answer in an envelope."))
    request = models.BinaryField(_("request"), null=True)
    facts = models.JSONField(_("facts"))
    since = models.PositiveBigIntegerField(_("since"), null=True)
    by = models.CharField(_("by"), max_length=LONGEST_NAME, blank=True)
    created_at = models.DateTimeField(_("created"), db_index=True)

    class Meta:
        verbose_name = _("proposal")
        verbose_name_plural = _("proposals")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.key:.12}"


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
    # Of one that is done in instalments (see `llmcache.store.instalments`):
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


class WriteGate(models.Model):
    """One row. Whoever stores an answer holds it together with others, an invalidation alone.

    (Where the database has other means, advisory locks or a single writer, it is not used.)
    """

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)


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


class UsageHour(models.Model):
    """The ledger: the calls of one hour that have in common all that is named here, added up.

    Hours that are old are added up further, into days (`hours` is 24 then). Times are in UTC.
    """

    hour = models.DateTimeField(_("hour"), help_text=_("When it began."))
    hours = models.PositiveSmallIntegerField(_("hours"), default=1, help_text=_("1, or 24: a day."))
    day = models.DateField(_("day"), help_text=_("The day of the hour, in UTC."))
    digest = ExactCharField(
        _("digest"), max_length=32, help_text=_("Of the columns from namespace to reason.")
    )
    namespace = ExactCharField(_("namespace"), max_length=LONGEST_NAME, blank=True)
    provider = ExactCharField(_("provider"), max_length=LONGEST_NAME, blank=True)
    model = ExactCharField(_("model"), max_length=LONGEST_NAME, blank=True)
    response_model = ExactCharField(_("response model"), max_length=LONGEST_NAME, blank=True)
    outcome = models.CharField(_("outcome"), max_length=16)
    tier = models.CharField(_("tier"), max_length=16, blank=True)
    reason = ExactCharField(
        _("reason"),
        max_length=LONGEST_NAME,
        blank=True,
        help_text=_("Why it is not a plain hit or miss, without what differs from call to call."),
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
