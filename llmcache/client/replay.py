"""The request of an entry, rebuilt from its row, to be asked again by a client of instructor.

An entry keeps the request as JSON, for people to read; JSON does not say all (a tuple from a list,
an image from a mapping). So a request counts as rebuilt only when it has the key of the entry: then
it is, to the last byte that counts, the one that was asked.

What the row does not have are credentials, and no row decides where they are sent. A client that
this process has made is asked, if one sends its requests to the same endpoint and is of the same
namespace; else one that ``instructor.from_provider`` makes of the environment, if that does. No
question is sent with the credentials of another namespace.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final

from instructor import Partial

from llmcache.client.call.arguments import DENIED
from llmcache.client.call.request import ClientRequest, read_request
from llmcache.client.registry import origins_for
from llmcache.flow.replay import NotRebuildable, described_in, policy_of
from llmcache.providers.headers import HEADERS_IN_WORDS

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


def request_of(entry: CacheEntry) -> ClientRequest:
    """The request that `entry` answers, with its namespace, tags, time to live and stale window.

    Nobody is asked, and the mode is ``reload``. Raises `NotRebuildable`.
    """
    described = described_in(entry)
    arguments = _arguments(entry, described)
    response_model = _response_model(entry, streams=bool(arguments.get("stream")))
    policy = policy_of(entry)
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


def _arguments(entry: CacheEntry, described: dict[str, Any]) -> dict[str, Any]:
    arguments = {name: described.get(name) for name in ("messages", "context", "strict")}
    own = {"model": entry.model, "cache_namespace": entry.namespace}
    return {**described["parameters"], **arguments, **own}


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
