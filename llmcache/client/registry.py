"""The clients of this process: by one of its namespace, a stored entry is asked again."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import instructor
from django.core.exceptions import ImproperlyConfigured
from instructor import AsyncInstructor, Instructor, Mode

from llmcache.client.call.origin import Origin
from llmcache.discretion import without_content
from llmcache.exceptions import LLMCacheError, UncacheableRequest
from llmcache.policy import UNSET, Policy
from llmcache.resilience.failsafe import logger

if TYPE_CHECKING:
    from llmcache.models import CacheEntry

_clients: weakref.WeakSet[Instructor] = weakref.WeakSet()
_lock = threading.Lock()


def remember(client: Instructor) -> None:
    """Note a client of this process, so that requests of the same kind can be rebuilt for it."""
    if not isinstance(client, AsyncInstructor):  # whose connections belong to an event loop
        with _lock:
            _clients.add(client)


def origins_for(entry: CacheEntry) -> list[Origin]:
    """Clients that ask where the entry is from, those of this process first."""
    with _lock:
        clients = list(_clients)
    same = [
        origin
        for origin in filter(None, map(_origin_of, clients))
        if _is_of(origin, entry.namespace) and _asks_the_same(origin, entry)
    ]
    if not same and (made := _made_of_the_environment(entry.provider, entry.model, entry.mode)):
        same = [made] if _asks_the_same(made, entry) else []
    # (one that was made for the namespace has credentials of its own, maybe)
    return sorted(same, key=lambda origin: origin.policy.namespace != entry.namespace)


def _origin_of(client: Any) -> Origin | None:
    try:
        origin: Origin = client.create_fn.origin  # (the first use, of one that is lazy)
    except Exception as error:  # noqa: BLE001 - whatever it misses: a key, an SDK, the name
        logger.info("llmcache: a lazy client cannot be made: %s", without_content(error))
        return None
    return origin


def _is_of(origin: Origin, namespace: str) -> bool:
    """Whether the credentials of a client may ask what is stored in `namespace`.

    It was made for that; or it was made for none, and of the environment, or the project has made
    calls in it by this client.
    """
    made_for: Any = origin.policy.namespace
    if made_for is not UNSET:
        return bool(made_for == namespace)
    if origin.is_of_environment or namespace in origin.namespaces:
        return True
    with suppress(LLMCacheError, ImproperlyConfigured):
        return origin.policy.namespace_name == namespace
    return False


def _asks_the_same(origin: Origin, entry: CacheEntry) -> bool:
    client = origin.client
    kind = (str(client.provider.value), str(client.mode.value))
    try:
        endpoint = origin.where.text_with(client.kwargs, client.kwargs, origin.exclude)
        return kind == (entry.provider, entry.mode) and endpoint == entry.endpoint
    except UncacheableRequest:
        return False


@lru_cache(maxsize=32)
def _made_of_the_environment(provider: str, model: str, mode: str) -> Origin | None:
    make: Any = instructor.from_provider
    try:
        client = make(f"{provider}/{model}", mode=Mode(mode))
    except Exception as error:  # noqa: BLE001 - whatever it misses: a key, an SDK, the name
        why = without_content(error)
        logger.info("llmcache: there is no client for %s in the environment: %s", provider, why)
        return None
    return Origin(client, Policy(), is_of_environment=True)
