"""What is stored: `CacheEntry`, one row an answer, and `EntryTag`, its labels."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmcache.conf import LONGEST_NAME


class ExactCharField(models.CharField):  # type: ignore[type-arg]
    """A CharField that compares to the letter on every database.

    MariaDB and MySQL compare text without regard to case, accents and trailing spaces unless told
    otherwise, and would remove the entries of ``"Acme"`` with those of ``"acme "``.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        return parameters


class CacheEntryQuerySet(models.QuerySet["CacheEntry"]):
    """The words in which the rest of llmcache asks for rows."""

    def fresh(self, at: datetime | None = None) -> CacheEntryQuerySet:
        return self.exclude(expires_at__lte=at or timezone.now())

    def expired(self, at: datetime | None = None) -> CacheEntryQuerySet:
        return self.filter(expires_at__lte=at or timezone.now())

    def in_namespace(self, namespace: str) -> CacheEntryQuerySet:
        return self.filter(namespace=namespace)

    def tagged(self, tags: Collection[str]) -> CacheEntryQuerySet:
        """Entries that carry at least one of `tags`."""
        return self.filter(pk__in=EntryTag.objects.filter(tag__in=tags).values("entry_id"))

    def light(self) -> CacheEntryQuerySet:
        """Without the columns that may be large: they are loaded when looked at."""
        return self.defer("payload", "request", "digests")


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
    latency = models.FloatField(
        _("latency"), null=True, help_text=_("Seconds that the model took to answer.")
    )
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    last_hit_at = models.DateTimeField(_("last hit"), null=True)
    hits = models.PositiveBigIntegerField(_("hits"), default=0)

    objects = CacheEntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("cache entry")
        verbose_name_plural = _("cache entries")
        default_permissions = ("view",)
        permissions = (("invalidate_cacheentry", _("Can invalidate cache entries")),)
        indexes = (
            models.Index(fields=["expires_at"], name="llmcache_entry_expires"),
            models.Index(fields=["created_at"], name="llmcache_entry_created"),
            models.Index(fields=["namespace", "created_at"], name="llmcache_entry_namespace"),
            models.Index(fields=["model", "created_at"], name="llmcache_entry_model"),
            models.Index(fields=["response_model", "created_at"], name="llmcache_entry_response"),
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
