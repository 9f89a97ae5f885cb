"""The entries: what is stored, and what is known about it.

`CacheEntry` is one answer, `EntryTag` a label on it, `EntryPart` another answer that it was made
of, `Proposal` a new answer that somebody is to look at first.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import models
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmcache.models.fields import ExactCharField, Unseen, WordsField, WordsIndex
from llmcache.values import LONGEST_NAME


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


class EntryTag(Unseen):
    """A label on an entry, for removing groups."""

    entry = models.ForeignKey(CacheEntry, on_delete=models.CASCADE, related_name="tags")
    tag = ExactCharField(max_length=LONGEST_NAME)

    class Meta(Unseen.Meta):
        constraints = (
            models.UniqueConstraint(fields=["tag", "entry"], name="llmcache_tag_entry_unique"),
        )


class EntryPart(Unseen):
    """That an entry was made of the answer under a key, which may be stored no more, or anew."""

    entry = models.ForeignKey(CacheEntry, on_delete=models.CASCADE, related_name="parts")
    key = ExactCharField(max_length=64)

    class Meta(Unseen.Meta):
        constraints = (
            models.UniqueConstraint(fields=["key", "entry"], name="llmcache_part_entry_unique"),
        )


class Proposal(Unseen):
    """A new answer that waits to take the place of the one that an entry has.

    `generation` tells which invalidations had begun before the model was asked: an answer that
    comes after one is not stored. `payload` and `request` are in envelopes, as those of an entry.
    """

    key = ExactCharField(max_length=64, db_index=True)
    payload = models.BinaryField()
    request = models.BinaryField(null=True)
    facts = models.JSONField()
    generation = models.PositiveBigIntegerField(null=True)
    by = models.CharField(max_length=LONGEST_NAME, blank=True)
    created_at = models.DateTimeField(db_index=True)
