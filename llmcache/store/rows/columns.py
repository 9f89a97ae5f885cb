"""What fits into a column, on every database."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings as django_settings
from django.utils import timezone

from llmcache.values import LONGEST_NAME


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the project keeps times (``USE_TZ``)."""
    aware = datetime.fromtimestamp(seconds, tz=UTC)
    if django_settings.USE_TZ:
        return aware
    # The zone of the process, as of `timezone.now`; not the one that a view has activated.
    return timezone.make_naive(aware, timezone.get_default_timezone())


def text(value: str) -> str:
    """`value` without what some database refuses in text: NUL and lone surrogates."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def label(value: str) -> str:
    """`value` cut to the length of a column."""
    return text(value)[:LONGEST_NAME]
