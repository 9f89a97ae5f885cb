"""Asking again for what is stored: the request of an entry, rebuilt from its row.

An entry keeps the request as JSON, for people to read; JSON does not say all (a tuple from a list,
an image from a mapping). So a request counts as rebuilt only when it has the key of the entry: then
it is, to the last byte that counts, the one that was asked.

What the row does not have are credentials, and no row decides where they are sent. A client that
this process has made is asked, if one sends its requests to the same endpoint; else one that
``instructor.from_provider`` makes of the environment, if that does.
"""

from __future__ import annotations

import json
import re
import threading
import typing
import weakref
from collections.abc import Iterable
from contextvars import Context
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import instructor
from instructor import AsyncInstructor, Mode, Partial

from llmcache.client.requests import ClientRequest, Origin, read_request
from llmcache.codec.envelope import REQUEST, unseal
from llmcache.exceptions import CorruptEntry, LLMCacheError, UncacheableRequest
from llmcache.failures import is_the_providers
from llmcache.flow import refresh, refresh_stream
from llmcache.leases import Ending, Lease, begin, lead
from llmcache.outcomes import Call
from llmcache.policy import CacheMode, Policy
from llmcache.store import durable, placement
from llmcache.store.entries import Found
from llmcache.store.safety import logger

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
BUILTINS: Final = {"bool": bool, "float": float, "int": int, "str": str}

_origins: weakref.WeakSet[Origin] = weakref.WeakSet()
_lock = threading.Lock()


class NotRebuildable(LLMCacheError):
    """The request of an entry cannot be asked again from here; the message says why."""


def remember(origin: Origin) -> None:
    """Note a client of this process, so that requests of the same kind can be rebuilt for it."""
    if not isinstance(origin.client, AsyncInstructor):  # whose connections belong to an event loop
        with _lock:
            _origins.add(origin)


def request_of(entry: CacheEntry) -> ClientRequest:
    """The request that `entry` answers, with its namespace, tags, time to live and stale window.

    Nobody is asked, and the mode is ``reload``. Raises `NotRebuildable`.
    """
    described = _described(entry)
    arguments = _arguments(entry, described)
    response_model = _response_model(entry, streams=bool(arguments.get("stream")))
    policy = _policy(entry)
    differing: set[str] = set()
    for origin in _origins_for(entry):
        told = replace(origin, policy=policy)
        # In an empty context: what an `override` around says is not said of this request.
        request = Context().run(read_request, told, response_model, dict(arguments))
        if request.call.key == entry.key:
            return request
        digests = request.canonical.digests() if request.canonical else {}
        differing |= {part for part in digests if digests[part] != entry.part_digests.get(part)}
        if request.bypass:
            raise NotRebuildable(request.bypass)
    if differing:
        parts = ", ".join(sorted(differing))
        raise NotRebuildable(f"what is stored of the request does not bring it back: {parts}")
    raise NotRebuildable(
        f"no client of this process asks {entry.provider} ({entry.endpoint}) in the mode "
        f"{entry.mode}; make one in a module that is imported here"
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
    if request.stream is None:
        refresh(request, request.ask, lease)
    else:
        refresh_stream(request, request.ask_stream, lease)
    return request.call


def refresh_entry(key: str) -> str:
    """Ask again for the entry under `key` if it has expired, and nobody else is at it.

    Returns a word of what happened: ``"refreshed"``, ``"fresh"`` (another one was quicker),
    ``"gone"`` (it was removed), ``"being refreshed"``, ``"not rebuildable"``, ``"not stored"`` or
    ``"the provider failed"``; the last three are logged. Raises what else the model raises.
    """
    flight = begin(key)
    lease = lead(flight) if flight else None
    if isinstance(lease, Found):
        return "fresh"
    if lease is None:
        return "being refreshed"
    entry = None
    try:
        # Looked at with the lease: who had it before may just have stored a new answer.
        rows = durable.entries().defer("words").filter(key=key)
        entry = placement.run(rows.first)
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
        logger.warning("llmcache: %s cannot be refreshed: %s", entry.key, error)
        return "not rebuildable"
    except Exception as error:
        if not is_the_providers(error):
            raise
        logger.warning("llmcache: %s was not refreshed: %r", entry.key, error)
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
    return {**described["parameters"], **arguments, "model": entry.model}


def _policy(entry: CacheEntry) -> Policy:
    ttl = stale = None
    if entry.expires_at is not None:
        kept = (entry.stale_until or entry.expires_at) - entry.expires_at
        stale = max(kept.total_seconds(), 0.0)
        # The time to live counts from the answer, and `created_at` is when it was asked for.
        lived = (entry.expires_at - entry.created_at).total_seconds()
        ttl = max(lived - (entry.latency or 0.0), 1.0)
    tags = placement.run(lambda: frozenset(entry.tags.values_list("tag", flat=True)))
    return Policy(
        mode=CacheMode.RELOAD,
        ttl=ttl,
        tags=tags,
        namespace=entry.namespace,
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
        return container[BUILTINS.get(match[2]) or _class_at(match[2])]
    found = _class_at(path)
    return Partial[found] if streams else found


def _class_at(path: str) -> Any:
    """The class with this dotted path, in a module of this process or one that can be imported."""
    names = path.split(".")
    for end in range(len(names) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(names[:end]))
            for name in names[end:]:
                found = getattr(found, name)
        except (ImportError, AttributeError, ValueError):
            continue
        if isinstance(found, type):
            return found
    raise NotRebuildable(f"the response model {path} cannot be found by its name")


def _origins_for(entry: CacheEntry) -> list[Origin]:
    """Clients that ask where the entry is from, those of this process first."""
    with _lock:
        known = list(_origins)
    same = [origin for origin in known if _asks_the_same(origin, entry)]
    if not same and (made := _made_of_the_environment(entry.provider, entry.model, entry.mode)):
        same = [made] if _asks_the_same(made, entry) else []
    return same


def _asks_the_same(origin: Origin, entry: CacheEntry) -> bool:
    client = origin.client
    kind = (str(client.provider.value), str(client.mode.value))
    try:
        return kind == (entry.provider, entry.mode) and origin.endpoint_name == entry.endpoint
    except UncacheableRequest:
        return False


@lru_cache(maxsize=32)
def _made_of_the_environment(provider: str, model: str, mode: str) -> Origin | None:
    make: Any = instructor.from_provider
    try:
        return Origin(make(f"{provider}/{model}", mode=Mode(mode)), Policy())
    except Exception as error:  # noqa: BLE001 - whatever it misses: a key, an SDK, the name
        logger.info("llmcache: there is no client for %s in the environment: %r", provider, error)
        return None
