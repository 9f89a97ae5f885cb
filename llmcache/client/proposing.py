"""Asking the model again for an entry without storing the answer: for people to look at first."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from llmcache.client.rebuilding import request_of
from llmcache.client.requests import ClientRequest
from llmcache.flow import NotStorable, refresh, refresh_stream
from llmcache.store import entries
from llmcache.store.durable import Draft

if TYPE_CHECKING:
    from llmcache.models import CacheEntry


@dataclass(frozen=True, slots=True)
class Proposed:
    """A new answer as an entry; `since` is to be told to `store.entries.save` with it."""

    draft: Draft
    since: int | None


@dataclass(slots=True)
class _HeldBack(ClientRequest):
    """A request whose answer is kept from the store."""

    draft_held_back: Draft | None = None

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        # (no `super()` without arguments: a class with slots is made anew)
        self.draft_held_back = ClientRequest.draft(self, answer, asked, latency)
        raise NotStorable("it waits to be confirmed")


def propose(entry: CacheEntry) -> Proposed | str:
    """Ask the model again for `entry`, and store nothing; a reason where it must not be stored.

    Raises `NotRebuildable`, and what the model raises.
    """
    request = _held_back(request_of(entry))
    since = entries.generation()
    if request.stream is None:
        refresh(request, request.ask, None)
    else:
        refresh_stream(request, request.ask_stream, None)
    if request.draft_held_back is None:
        return request.call.reason
    return Proposed(request.draft_held_back, since)


def _held_back(request: ClientRequest) -> _HeldBack:
    return _HeldBack(**{each.name: getattr(request, each.name) for each in fields(request)})
