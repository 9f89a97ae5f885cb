"""Asking again for what is stored: the request of an entry, rebuilt from its row.

An entry keeps the request as JSON, for people to read; JSON does not say all (a tuple from a list,
an image from a mapping). So a request counts as rebuilt only when it has the key of the entry: then
it is, to the last byte that counts, the one that was asked.

What the row does not have are credentials, and no row decides where they are sent. A client that
this process has made is asked, if one sends its requests to the same endpoint and is of the same
namespace; else one that ``instructor.from_provider`` makes of the environment, if that does. No
question is sent with the credentials of another namespace.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, fields, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final

from instructor import Partial

from llmcache import store
from llmcache.background import database
from llmcache.client.call.arguments import DENIED
from llmcache.client.call.request import ClientRequest, read_request
from llmcache.client.registry import origins_for
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.discretion import without_content
from llmcache.exceptions import CorruptEntry, LLMCacheError
from llmcache.flow.steps import NotStorable
from llmcache.leases import Ending, Lease, lead, start
from llmcache.outcomes import Call
from llmcache.policy import CacheMode, Policy
from llmcache.providers.errors import is_the_providers
from llmcache.providers.headers import HEADERS_IN_WORDS
from llmcache.reasons import ReasonCode
from llmcache.resilience.failsafe import ends_the_task, logger
from llmcache.store.records import Draft, Found
from llmcache.store.rows import tier as durable

if TYPE_CHECKING:
    from llmcache.models import CacheEntry

# Types whose names say all but for what is inside of the brackets, which is looked up.
LISTS: Final[dict[str, Any]] = {
    "list": list,
    "typing.List": typing.List,  # noqa: UP006 - written as it was
    "typing.Iterable": typing.Iterable,
    "collections.abc.Iterable": Iterable,
}
LIST_OF: Final = re.compile(r"([\w.]+)\[([\w.]+)\]")


class NotRebuildable(LLMCacheError):
    """The request of an entry cannot be asked again from here; the message says why."""

    is_without_content = True


def request_of(entry: CacheEntry) -> ClientRequest:
    """The request that `entry` answers, with its namespace, tags, time to live and stale window.

    Nobody is asked, and the mode is ``reload``. Raises `NotRebuildable`.
    """
    described = _described(entry)
    arguments = _arguments(entry, described)
    response_model = _response_model(entry, streams=bool(arguments.get("stream")))
    policy = _policy(entry)
    differing: set[str] = set()
    for origin in origins_for(entry):
        told = replace(origin, policy=policy)
        # What instructor gives each call of the client, and no row keeps: headers, timeouts, ...
        given = {name: arg for name, arg in origin.client.kwargs.items() if name in DENIED}
        # In an empty context: what an `override` around says is not said of this request.
        request = Context().run(read_request, told, response_model, given | arguments)
        if request.call.key == entry.key:
            return request
        digests = request.canonical.digests() if request.canonical else {}
        differing |= {part for part in digests if digests[part] != entry.part_digests.get(part)}
        if request.bypass:
            raise NotRebuildable(request.bypass.text)
    if differing:
        parts = ", ".join(sorted(differing))
        raise NotRebuildable(f"what is stored of the request does not bring it back: {parts}")
    way_out = (
        "make one with that namespace in a module that is imported here, or put the credentials "
        "into the environment"
    )
    if HEADERS_IN_WORDS in entry.endpoint:
        way_out += ", with these headers (those of a call are not stored: give them to the client)"
    raise NotRebuildable(
        f"no client of this process asks {entry.provider} ({entry.endpoint}) in the mode "
        f"{entry.mode} for the namespace {entry.namespace!r}; {way_out}"
    )


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


def _described(entry: CacheEntry) -> dict[str, Any]:
    if entry.request is None:
        raise NotRebuildable("its request is not stored (LLMCACHE['STORE_REQUESTS'])")
    try:
        described = json.loads(unseal(REQUEST, entry.key, bytes(entry.request)).body)
    except (CorruptEntry, ValueError) as error:
        raise NotRebuildable(f"its stored request cannot be read ({error})") from None
    if not isinstance(described, dict) or not isinstance(described.get("parameters"), dict):
        raise NotRebuildable("its stored request is not as it was sent")
    return described


def _arguments(entry: CacheEntry, described: dict[str, Any]) -> dict[str, Any]:
    arguments = {name: described.get(name) for name in ("messages", "context", "strict")}
    own = {"model": entry.model, "cache_namespace": entry.namespace}
    return {**described["parameters"], **arguments, **own}


def _policy(entry: CacheEntry) -> Policy:
    ttl = stale = None
    if entry.expires_at is not None:
        kept = (entry.stale_until or entry.expires_at) - entry.expires_at
        stale = max(kept.total_seconds(), 0.0)
        # The time to live counts from the answer, and `created_at` is when it was asked for.
        lived = (entry.expires_at - entry.created_at).total_seconds()
        ttl = max(lived - (entry.latency or 0.0), 1.0)
    tags = database.run(lambda: frozenset(entry.tags.values_list("tag", flat=True)))
    return Policy(
        mode=CacheMode.RELOAD,
        ttl=ttl,
        tags=tags,
        stale_while_revalidate=stale or 0.0,
        stale_if_error=stale or 0.0,
        is_spread=False,  # it is already: from a part left out, no second one is
    )


def _response_model(entry: CacheEntry, *, streams: bool) -> Any:
    path = entry.response_model
    if not path:
        return None
    match = LIST_OF.fullmatch(path)
    if match and (container := LISTS.get(match[1])):
        return container[_class_at(match[2])]
    found = _class_at(path)
    return Partial[found] if streams else found


def _class_at(path: str) -> type:
    """The class with this dotted path, in a module of this process or one that can be imported."""
    with suppress(ImportError, AttributeError, ValueError):
        found = resolve_name(path if "." in path else f"builtins.{path}")
        if isinstance(found, type):
            return found
    raise NotRebuildable(f"the response model {path} cannot be found by its name")


@dataclass(slots=True)
class _HeldBack(ClientRequest):
    """A request whose answer is kept from the store."""

    draft_held_back: Draft | None = None

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        # (no `super()` without arguments: a class with slots is made anew)
        self.draft_held_back = ClientRequest.draft(self, answer, asked, latency)
        raise NotStorable(ReasonCode.TO_BE_CONFIRMED())


def propose(entry: CacheEntry) -> tuple[Draft, int | None] | str:
    """Ask the model again for `entry`, and store nothing.

    Returns the new answer as an entry, and the generation that is to be told to `store.save` with
    it; a reason where it must not be stored. Raises `NotRebuildable`, and what the model raises.
    """
    request = request_of(entry)
    held_back = _HeldBack(**{each.name: getattr(request, each.name) for each in fields(request)})
    generation = store.generation()
    held_back.refresh(None)
    draft = held_back.draft_held_back
    return held_back.call.reason if draft is None else (draft, generation)
