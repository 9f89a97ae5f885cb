"""`LLMCache`: llmcache's store behind LiteLLM's cache of answers.

For what LiteLLM asks by other ways than an HTTP client of yours (``litellm.client_session``, which
is the better door where it is used: it has single flight, and streams as they came).

LiteLLM's own key leaves out the endpoint and what is passed through to a provider. This one has all
that is asked, but for what cannot change the answer; with something that has no canonical form,
there is none, and nothing is stored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import litellm
from litellm.caching.base_cache import BaseCache
from litellm.caching.caching import Cache

from llmcache.aside import Aside, Form
from llmcache.client.call.endpoints import Endpoint
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.equality import same
from llmcache.discretion import without_content
from llmcache.keys.request import canonical_context, canonical_parameters, digest
from llmcache.policy import TTL, UNSET, Policy, Unset
from llmcache.providers.arguments import UNHEARD
from llmcache.resilience.failsafe import ends_the_task
from llmcache.store.records import describe

if TYPE_CHECKING:
    from typing_extensions import TypeIs

logger = logging.getLogger("llmcache")

# What tells LiteLLM how to go about it, and who asks; and what else is known of the headers.
NOT_COUNTED: Final = frozenset(
    {
        *("acompletion", "aembedding", "atext_completion", "cache", "cache_key", "caching"),
        *("client", "extra_headers", "logger_fn", "max_retries", "metadata", "num_retries"),
        *("preset_cache_key", "proxy_server_request", "request_timeout", "shared_session"),
        *("stream_timeout", "timeout", "verbose"),
    }
)
OWN: Final = "litellm_"
SCHEMAS: Final = frozenset({"functions", "response_format", "tools"})


class LLMCache(Cache):
    """A cache for LiteLLM: ``litellm.cache = LLMCache(namespace="support")``.

    ``cache={"ttl": 60}`` in a call says for how long, ``{"no-cache": True}`` and ``{"no-store":
    True}`` are LiteLLM's.

    Args:
        namespace: the namespace of the entries, where neither an `override` nor the request names
            another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for the entries, for `invalidate`.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """

    def __init__(
        self,
        namespace: str | Unset = UNSET,
        ttl: TTL | Unset = UNSET,
        tags: Iterable[str] = (),
    ) -> None:
        super().__init__(type="local")  # (the kind that needs no server)
        policy = Policy().changed(namespace=namespace, ttl=ttl, tags=tags)
        self._aside = Aside(FORM, policy)
        self.cache = _Entries(self._aside)

    def _add_namespace_to_cache_key(self, hash_hex: str, **kwargs: Any) -> str | None:
        # (LiteLLM stores on another thread, which has no `override` around it)
        try:
            return _Key(self._aside.policy.namespace_name, _digest(kwargs))
        except Exception as error:
            if ends_the_task(error):
                raise
            logger.warning("llmcache: LiteLLM's call has no key: %s", without_content(error))
            return None


class _Key(str):
    """A key that was made here. (The ``cache_key`` of a call may be anybody's, and name any.)"""

    namespace: str

    def __new__(cls, namespace: str, digest: str) -> _Key:
        key = super().__new__(cls, json.dumps([namespace, digest]))
        key.namespace = namespace
        return key


class _Entries(BaseCache):
    def __init__(self, aside: Aside) -> None:
        super().__init__()
        self._aside = aside

    def get_cache(self, key: str, **kwargs: Any) -> Any:
        return self._aside.get(key, namespace=key.namespace) if _is_ours(key) else None

    async def async_get_cache(self, key: str, **kwargs: Any) -> Any:
        return await self._aside.aget(key, namespace=key.namespace) if _is_ours(key) else None

    def set_cache(self, key: str, value: Any, **kwargs: Any) -> None:
        if _is_ours(key):
            self._aside.set(key, value, **_told(key, kwargs))

    async def async_set_cache(self, key: str, value: Any, **kwargs: Any) -> None:
        if _is_ours(key):
            await self._aside.aset(key, value, **_told(key, kwargs))

    async def async_set_cache_pipeline(
        self, cache_list: Iterable[tuple[str, Any]], **kwargs: Any
    ) -> None:
        for key, value in cache_list:
            await self.async_set_cache(key, value, **kwargs)

    async def disconnect(self) -> None:
        """Nothing of LiteLLM's is open."""


def _digest(asked: Mapping[str, Any]) -> str:
    endpoint = Endpoint(None, None, litellm.completion).text_with(asked, {}, frozenset())
    counted = {
        name: value
        for name, value in asked.items()
        if not (name in NOT_COUNTED or name in UNHEARD or name.startswith(OWN) or value is None)
    }
    # (a model fills a schema in in the order of its fields)
    schemas = sorted(SCHEMAS & counted.keys())
    ordered = [canonical_context({name: counted[name]}) for name in schemas]
    form = canonical_parameters({**counted, "endpoint of litellm": endpoint})
    return digest(form + b"".join(ordered)).hex()


def _is_ours(key: str) -> TypeIs[_Key]:
    if isinstance(key, _Key):
        return True
    logger.warning("llmcache: LiteLLM's calls with a cache_key= of their own are not cached")
    return False


def _told(key: _Key, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    ttl = kwargs.get("ttl")
    return {
        "ttl": UNSET if ttl is None else ttl,
        "namespace": key.namespace,
        "described": partial(_described, kwargs),
    }


def _described(asked: Mapping[str, Any]) -> bytes | None:
    said = asked.get("messages") or asked.get("input") or asked.get("prompt")
    return describe({"messages": said, "parameters": {}, "context": None, "strict": None})


def _encode(value: Any) -> StoredAnswer | None:
    with suppress(ValueError, TypeError, RecursionError):
        stored = StoredAnswer(json.dumps(value).encode())
        if same(_decode(stored), value):
            return stored
    return None


def _decode(stored: StoredAnswer) -> Any:
    return json.loads(stored.answer)


def _completion(stored: StoredAnswer) -> dict[str, Any]:
    """The response that LiteLLM has made of the provider's."""
    with suppress(ValueError, LookupError, TypeError):
        response = _decode(stored)["response"]
        response = json.loads(response) if isinstance(response, str) else response
        if isinstance(response, dict):
            return response
    return {}


FORM: Final = Form("LLMCache of LiteLLM", "litellm", "litellm", _encode, _decode, _completion)
