"""The admin's own log: who did what."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model

from llmcache.models import CacheEntry, Invalidation


def note(user: Any, about: CacheEntry | Invalidation, action: int, message: str) -> None:
    """Write down what `user` did; `action` is one of Django's flags."""
    subject = f"{about} ({about.namespace})" if isinstance(about, CacheEntry) else str(about)
    line(user.pk, action, str(about.pk), subject, message, type(about)).save()


def line(
    user_id: Any,
    action: int,
    object_id: str | None,
    subject: str,
    message: str,
    model: type[Model] = CacheEntry,
) -> LogEntry:
    """A line that is still to be saved; `object_id` None: about several entries."""
    return LogEntry(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(model),
        object_id=object_id,
        object_repr=subject[:200],
        action_flag=action,
        change_message=message,
    )
