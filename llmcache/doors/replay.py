"""Asking again for what is stored, by the way in that it came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache import store
from llmcache.background import database
from llmcache.discretion import without_content
from llmcache.exceptions import LLMCacheError
from llmcache.flow.replay import HTTP, NotRebuildable
from llmcache.leases import Ending, Lease, lead, start
from llmcache.outcomes import Call
from llmcache.providers.errors import is_the_providers
from llmcache.resilience.failsafe import ends_the_task, logger
from llmcache.store.records import Draft, Found
from llmcache.store.rows import tier as durable

if TYPE_CHECKING:
    from llmcache.flow.request import BaseRequest
    from llmcache.models import CacheEntry

__all__ = ["NotRebuildable", "ask_again", "propose", "refresh_entry", "request_of"]


def request_of(entry: CacheEntry) -> BaseRequest:
    """The request that `entry` answers, with its namespace, tags, time to live and stale window.

    Nobody is asked, and the mode is ``reload``. Raises `NotRebuildable`.
    """
    if entry.mode == HTTP:
        from llmcache.http import replay as of_http

        return of_http.request_of(entry)
    from llmcache.client import replay as of_instructor

    return of_instructor.request_of(entry)


def ask_again(entry: CacheEntry, lease: Lease | None = None) -> Call:
    """Ask the model again for `entry`, and store the answer in its place.

    Returns how that went: ``stored``, and the ``reason`` if it is not. Raises `NotRebuildable`, and
    what the model raises. `lease` is the right to ask, and is ended in any case.
    """
    try:
        request = request_of(entry)
    except BaseException:
        if lease is not None:
            lease.end(Ending.ABANDONED)
        raise
    request.refresh(lease)
    return request.call


def refresh_entry(key: str) -> str:
    """Ask again for the entry under `key` if it has expired, and nobody else is at it.

    Returns a word of what happened: ``"refreshed"``, ``"fresh"`` (another one was quicker),
    ``"gone"`` (it was removed), ``"being refreshed"``, ``"not rebuildable"``, ``"not stored"`` or
    ``"the provider failed"``; the last three are logged.

    What else the model raises becomes an `LLMCacheError` without its text.
    """
    flight = start(key)
    lease = lead(flight) if flight else None
    if isinstance(lease, Found):
        return "fresh"
    if lease is None:
        return "being refreshed"
    entry = None
    try:
        # Looked at with the lease: who had it before may just have stored a new answer.
        rows = durable.entries().defer("words").filter(key=key)
        entry = database.run(rows.first)
    finally:
        if entry is None or not entry.is_expired:
            lease.end(Ending.ABANDONED)
    if entry is None:
        return "gone"
    return _refreshed(entry, lease) if entry.is_expired else "fresh"


def _refreshed(entry: CacheEntry, lease: Lease) -> str:
    try:
        call = ask_again(entry, lease)
    except NotRebuildable as error:
        logger.warning("llmcache: %s cannot be refreshed: %s", entry.key, without_content(error))
        return "not rebuildable"
    except Exception as error:
        if ends_the_task(error):
            raise
        if not is_the_providers(error):
            # A queue writes down what its tasks raise, and what that was raised from.
            why = without_content(error)
            raise LLMCacheError(f"{entry.key} was not refreshed: {why}") from None
        logger.warning("llmcache: %s was not refreshed: %s", entry.key, without_content(error))
        return "the provider failed"
    if not call.stored:
        logger.warning("llmcache: %s was not refreshed: %s", entry.key, call.reason)
        return "not stored"
    return "refreshed"


def propose(entry: CacheEntry) -> tuple[Draft, int | None] | str:
    """Ask the model again for `entry`, and store nothing.

    Returns the new answer as an entry, and the generation that is to be told to `store.save` with
    it; a reason where it must not be stored. Raises `NotRebuildable`, and what the model raises.
    """
    request = request_of(entry)
    request.held_back = []
    generation = store.generation()
    request.refresh(None)
    return (request.held_back[0], generation) if request.held_back else request.call.reason
