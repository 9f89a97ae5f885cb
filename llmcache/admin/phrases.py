"""Names and times in few words, for a column of a list."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _

from llmcache.models import CacheEntry
from llmcache.reports import formatting

MINUTE: Final = timedelta(minutes=1)


def class_name(path: str) -> str:
    """The name of a class without the path to it; what is in brackets belongs to the name."""
    name, bracket, arguments = path.partition("[")
    return name.rpartition(".")[2] + bracket + arguments


def state(entry: CacheEntry) -> str:
    """One of ``fresh``, ``expired``, ``never`` (expires) and ``pinned``."""
    if entry.pinned:
        return "pinned"
    if entry.expires_at is None:
        return "never"
    return "expired" if entry.is_expired else "fresh"


def age(moment: datetime, *, said: str = "%(time)s") -> str:
    if timezone.now() - moment < MINUTE:
        return _("just now")
    return said % {"time": timesince(moment, depth=1)}


def ago(moment: datetime) -> str:
    return age(moment, said=_("%(time)s ago"))


def expiry(entry: CacheEntry) -> str:
    """When an entry expires or has expired, from now."""
    moment = entry.expires_at
    if entry.pinned:
        return _("pinned")
    if moment is None:
        return _("never")
    if entry.is_expired:
        return _("expired %(ago)s") % {"ago": ago(moment)}
    if moment - timezone.now() < MINUTE:
        return _("in less than a minute")
    return _("in %(time)s") % {"time": timeuntil(moment, depth=1)}


def hits(entry: CacheEntry) -> str:
    """How often an entry was served, and how often a day, once it is a day old."""
    days = (timezone.now() - entry.created_at) / timedelta(days=1)
    served = formatting.count(entry.hits)
    if days < 1 or not entry.hits:
        return served
    a_day = number_format(round(entry.hits / days, 1), 1, force_grouping=True)
    return _("%(hits)s, about %(a_day)s a day") % {"hits": served, "a_day": a_day}


def money(cost: int | None) -> str:
    """Billionths of a US dollar in dollars, or that it is not known."""
    return _("unpriced") if cost is None else formatting.money(cost)
