"""Asking the model again for an entry: its new answer is looked at before it replaces the old."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from llmcache.admin import phrases
from llmcache.admin.base import EntriesAdmin, log_line
from llmcache.admin.entries.content import CLOSED, open_answer
from llmcache.admin.entries.nearest import diff_lines
from llmcache.admin.entries.texts import parse
from llmcache.explanation.diff import difference
from llmcache.models import CacheEntry, Proposal
from llmcache.store import proposals
from llmcache.store.rows.columns import moment


def ask(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    # It brings instructor and an SDK along: most processes that show the admin ask nobody.
    from llmcache.doors.replay import NotRebuildable, propose

    try:
        proposed = propose(entry)
    except NotRebuildable as error:
        return admin.refuse(request, entry, _("It cannot be asked again: %s.") % error)
    except Exception as error:  # noqa: BLE001 - the provider, an SDK or a validator may raise anything
        why = f"{type(error).__name__}: {error}"[:500]
        return admin.refuse(request, entry, _("The model gave no answer: %s") % why)
    if isinstance(proposed, str):
        said = _("The model has answered, and the answer cannot be stored: %s.")
        return admin.refuse(request, entry, said % proposed)
    proposals.keep(*proposed, request.user.get_username())
    said = _("Asked the model again; nothing is replaced yet.")
    log_line(request.user, entry, CHANGE, said).save()
    return HttpResponseRedirect(admin.url(request, "proposal", entry.pk))


def decide(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    """Show the old and the new answer; replace the one by the other when that is said."""
    proposal = proposals.find(entry.key)
    if proposal is None:
        return admin.refuse(request, entry, _("There is no new answer: ask again."))
    if request.method == "POST" and request.POST.get("proposal") == str(proposal.pk):
        return _decided(admin, request, entry, proposal)
    return admin.page(request, "proposal", _comparison(entry, proposal))


def _decided(
    admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry, proposal: Proposal
) -> HttpResponse:
    if "replace" not in request.POST:
        proposals.discard(entry.key)
        messages.info(request, _("The old answer stays."))
        return admin.back_to(request, entry)
    refusal = proposals.accept(proposal)
    if refusal is not None:
        return admin.refuse(request, entry, _("Nothing was replaced: %s.") % refusal)
    said = _("Replaced by a new answer of the model.")
    log_line(request.user, entry, CHANGE, said).save()
    messages.success(request, said)
    return admin.back_to(request, entry)


def _comparison(entry: CacheEntry, proposal: Proposal) -> dict[str, Any]:
    draft = proposals.draft_of(proposal)
    old, new = _answer(entry.key, entry.payload), _answer(entry.key, draft.payload)
    asked = entry.created_at, moment(draft.created)
    return {
        "title": _("A new answer for %(key)s") % {"key": entry},
        "entry": entry,
        "proposal": proposal,
        "ago": phrases.ago(proposal.created_at),
        "lines": [*diff_lines(difference(old, new, (_("old answer"), _("new answer"))))],
        "facts": [
            (_("Asked"), *(f"{each:%Y-%m-%d %H:%M:%S}" for each in asked)),
            (_("Tokens in"), entry.input_tokens, draft.input_tokens),
            (_("Tokens out"), entry.output_tokens, draft.output_tokens),
            (_("Latency"), _seconds(entry.latency), _seconds(draft.latency)),
        ],
    }


def _answer(key: str, payload: Any) -> Any:
    """An answer as a value, or why it cannot be read."""
    try:
        return parse(open_answer(key, payload).answer)
    except CLOSED as error:
        return _("cannot be read: %(why)s") % {"why": error}


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else _("%(seconds).2f s") % {"seconds": seconds}
