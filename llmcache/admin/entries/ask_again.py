"""Asking the model again for an entry: its new answer is looked at before it replaces the old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.models import CHANGE
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from llmcache.admin import phrases
from llmcache.admin.base import EntriesAdmin, EntryPage, log
from llmcache.admin.entries.nearest import Line, diff_lines
from llmcache.admin.entries.texts import parse
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.exceptions import CorruptEntry
from llmcache.explanation.diff import difference
from llmcache.models import CacheEntry, Proposal
from llmcache.store import proposals
from llmcache.store.records import Draft
from llmcache.store.rows.columns import moment


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that both answers have, in words."""

    name: str
    old: str
    new: str


def ask(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry) -> HttpResponse:
    # It brings instructor and an SDK along: most processes that show the admin ask nobody.
    from llmcache.client.replay import NotRebuildable, propose

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
    proposals.keep(proposed.draft, proposed.generation, request.user.get_username())
    log(request.user, entry, CHANGE, _("Asked the model again; nothing is replaced yet."))
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
    log(request.user, entry, CHANGE, said)
    messages.success(request, said)
    return admin.back_to(request, entry)


def _comparison(entry: CacheEntry, proposal: Proposal) -> dict[str, Any]:
    draft = proposals.draft_of(proposal)
    old, new = _answer(entry.key, entry.payload), _answer(entry.key, draft.payload)
    shown = difference(old, new, (_("old answer"), _("new answer")))
    lines: tuple[Line, ...] = tuple(diff_lines(shown))
    return {
        "title": _("A new answer for %(key)s") % {"key": entry},
        "entry": entry,
        "proposal": proposal,
        "ago": phrases.ago(proposal.created_at),
        "lines": lines,
        "facts": _facts(entry, draft),
    }


def _answer(key: str, payload: Any) -> Any:
    """An answer as a value, or why it cannot be read."""
    try:
        return parse(StoredAnswer.unpack(unseal(ANSWER, key, bytes(payload)).body).answer)
    except CorruptEntry as error:
        return _("cannot be read: %(why)s") % {"why": error}


def _facts(entry: CacheEntry, draft: Draft) -> list[Fact]:
    asked = [entry.created_at, moment(draft.created)]
    return [
        Fact(_("Asked"), *(f"{each:%Y-%m-%d %H:%M:%S}" for each in asked)),
        Fact(_("Tokens in"), _counted(entry.input_tokens), _counted(draft.input_tokens)),
        Fact(_("Tokens out"), _counted(entry.output_tokens), _counted(draft.output_tokens)),
        Fact(_("Latency"), _seconds(entry.latency), _seconds(draft.latency)),
    ]


def _counted(count: int | None) -> str:
    return "–" if count is None else str(count)


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else _("%(seconds).2f s") % {"seconds": seconds}


PAGES: Final = (
    EntryPage("ask_again", ask, ("content", "ask_again")),
    EntryPage("proposal", decide, ("content", "ask_again"), methods=("GET", "POST")),
)
