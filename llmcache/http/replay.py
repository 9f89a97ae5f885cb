"""The request of an entry, rebuilt from its row, to be asked again by an HTTP client.

Such a client has no credentials of its own: an SDK sends them with each request. So it is one of
this process that has asked there before, in that namespace, and is there still; what it has sent
then is known as long. A request counts as rebuilt only when it has the key of the entry.
"""

from __future__ import annotations

import json
import weakref
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from llmcache.background import forks
from llmcache.flow.replay import NotRebuildable, body_of, described_in, policy_of
from llmcache.http.door import Door, library_of
from llmcache.http.embeddings import one_of
from llmcache.http.reading import read_request
from llmcache.http.request import HttpRequest
from llmcache.keys.request import SAMPLE
from llmcache.providers.dialects import dialect_of

if TYPE_CHECKING:
    from llmcache.models import CacheEntry

# What is told of the body that was sent, and not of the one that is to be.
OF_THE_BODY: Final = frozenset({"content-length", "transfer-encoding", "host"})

_doors: Final[weakref.WeakSet[Door]] = weakref.WeakSet()
_lock: Final = forks.lock()


def remember(door: Door) -> None:
    """Note the way in of a synchronous client, so that entries can be asked again by it."""
    with _lock:
        _doors.add(door)


def request_of(entry: CacheEntry) -> HttpRequest:
    """The request that `entry` answers. Nobody is asked, and the mode is ``reload``.

    Raises `NotRebuildable`.
    """
    described = described_in(entry)
    with _lock:
        doors = list(_doors)
    seen = [(door, sent) for door in doors if (sent := door.seen.get(_place(entry)))]
    for door, sent in seen:
        request = _rebuilt(entry, described, door, sent)
        if request.call.key == entry.key:
            return one_of(request)
    if seen:
        raise NotRebuildable("what is stored of the request does not bring it back")
    raise NotRebuildable(
        f"no HTTP client of this process has asked {entry.endpoint} for the namespace "
        f"{entry.namespace!r}: the credentials are those of its requests"
    )


def _place(entry: CacheEntry) -> tuple[str, str]:
    return entry.namespace, entry.endpoint


def _rebuilt(entry: CacheEntry, described: dict[str, Any], door: Door, sent: Any) -> HttpRequest:
    body, sample = _body(entry, described, sent)
    headers = [pair for pair in sent.headers.multi_items() if pair[0] not in OF_THE_BODY]
    new = library_of(sent).Request("POST", sent.url, headers=headers, content=json.dumps(body))
    policy = replace(
        policy_of(entry), namespace=entry.namespace, is_own_namespace=True, sample=sample
    )
    # In an empty context: what an `override` around says is not said of this request.
    return Context().run(read_request, replace(door, policy=policy), new, is_async=False)


def _body(entry: CacheEntry, described: dict[str, Any], sent: Any) -> tuple[dict[str, Any], int]:
    """The body, and which of several answers is meant."""
    path, body = unquote(sent.url.path), body_of(described)
    dialect = dialect_of(path)
    sample = body.pop(SAMPLE, 0)
    if dialect is not None and entry.model and not dialect.names_model_in(path):
        body["model"] = entry.model
    return body, sample
