"""Buttons that change what is known of an entry: its pin, its time, its tags."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin.models import CHANGE
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from llmcache.admin.base import EntriesAdmin, log_line
from llmcache.admin.entries.forms import TagsForm, TimeForm, first_error
from llmcache.admin.entries.selected import STILL_PENDING
from llmcache.conf import settings
from llmcache.exceptions import CorruptEntry
from llmcache.models import CacheEntry
from llmcache.outcomes import Tier
from llmcache.store import amendments


def pin(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    said = _("Pinned: it never expires, and an answer that replaces it does not either.")
    return _retime(admin, request, entry, said, ttl=None, pinned=True)


def unpin(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    if not entry.pinned:
        return admin.refuse(request, entry, _("It is not pinned."))
    said = _("Not pinned any more: it expires as if it had been stored now.")
    return _retime(admin, request, entry, said, ttl=settings.ttl, pinned=False)


def set_time(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    form = TimeForm(request.POST)
    if entry.pinned:
        return admin.refuse(request, entry, _("It is pinned, and so has no time: unpin it."))
    if not form.is_valid():
        return admin.refuse(request, entry, first_error(form))
    labels = dict(form.fields["expires"].choices)  # type: ignore[attr-defined]
    said = _("It expires %(when)s.") % {"when": labels[form.cleaned_data["expires"]]}
    return _retime(admin, request, entry, said, ttl=form.ttl, pinned=False)


def set_tags(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    form = TagsForm(request.POST)
    if not form.is_valid():
        return admin.refuse(request, entry, first_error(form))
    tags = form.cleaned_data["tags"]
    if not amendments.set_tags(entry.pk, tags):
        return admin.gone(request)
    said = _("Its tags are now: %(tags)s.") % {"tags": ", ".join(sorted(tags)) or _("none")}
    return _done(admin, request, entry, said)


def _retime(
    admin: EntriesAdmin,
    request: HttpRequest,
    entry: CacheEntry,
    said: str,
    *,
    ttl: float | None,
    pinned: bool,
) -> HttpResponse:
    try:
        pending = amendments.set_time(entry.pk, ttl, pinned=pinned)
    except CorruptEntry as error:
        return admin.refuse(request, entry, _("It cannot be read: %(why)s.") % {"why": error})
    if pending is None:
        return admin.gone(request)
    if Tier.HOT in pending:
        messages.warning(request, STILL_PENDING[Tier.HOT])
    return _done(admin, request, entry, said)


def _done(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry, said: str) -> HttpResponse:
    log_line(request.user, entry, CHANGE, said).save()
    messages.success(request, said)
    return admin.back_to(request, entry)
