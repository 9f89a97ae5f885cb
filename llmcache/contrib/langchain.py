"""`LLMCache`: llmcache's store behind LangChain's cache of answers.

For models that take no HTTP client. Where one does, ``llmcache.http_client`` is the better door: it
sees what is sent, so it has streams and embeddings as well, and one call for many who ask at once.

Answers are kept as LangChain's own JSON. Only the classes that answers are made of are read from
it; an answer that would come back otherwise is not stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from inspect import unwrap
from typing import Any, Final

from langchain_core import messages, outputs
from langchain_core.caches import BaseCache
from langchain_core.load import dumps, loads

from llmcache.aside import Aside, Form
from llmcache.codec.answers import StoredAnswer
from llmcache.policy import TTL, UNSET, Policy, Unset
from llmcache.providers.admission import COMPLETED
from llmcache.removal.invalidate import ainvalidate, invalidate
from llmcache.store.records import describe

# What entries of LangChain are labelled with, for `clear`.
TAG: Final = "langchain"
CLASSES: Final = (
    *(outputs.Generation, outputs.GenerationChunk),
    *(outputs.ChatGeneration, outputs.ChatGenerationChunk),
    *(messages.AIMessage, messages.AIMessageChunk, messages.ChatMessage, messages.ChatMessageChunk),
)
# (`loads` itself would warn, once, that it is new)
_loads: Final[Callable[..., Any]] = unwrap(loads)


class LLMCache(BaseCache):
    """A cache for LangChain: ``set_llm_cache(LLMCache(namespace="support"))``.

    Args:
        namespace: the namespace of the entries, where neither an `override` nor the request names
            another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for the entries, for `invalidate`. They have ``"langchain"`` besides.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """

    def __init__(
        self,
        namespace: str | Unset = UNSET,
        ttl: TTL | Unset = UNSET,
        tags: Iterable[str] = (),
    ) -> None:
        policy = Policy(tags=frozenset({TAG}))
        self._aside = Aside(FORM, policy.changed(namespace=namespace, ttl=ttl, tags=tags))

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """The answers that are stored for this; None: a miss, or trouble."""
        return self._aside.get(_text(prompt, llm_string))

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Any] | None:
        """`lookup` for a coroutine."""
        return await self._aside.aget(_text(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """Store answers. Never raises."""
        described = partial(_described, prompt)
        self._aside.set(_text(prompt, llm_string), return_val, described=described)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """`update` for a coroutine."""
        described = partial(_described, prompt)
        await self._aside.aset(_text(prompt, llm_string), return_val, described=described)

    def clear(self, **kwargs: Any) -> None:
        """Remove what LangChain has stored in this namespace, through any of its caches."""
        invalidate(namespace=self._aside.policy.namespace_name, tags=[TAG])

    async def aclear(self, **kwargs: Any) -> None:
        """`clear` for a coroutine."""
        await ainvalidate(namespace=self._aside.policy.namespace_name, tags=[TAG])


def _text(prompt: str, llm_string: str) -> str:
    return json.dumps([prompt, llm_string])


def _described(prompt: str) -> bytes | None:
    """The prompt as people read it, whose messages LangChain has as JSON."""
    said: Any = prompt
    with suppress(ValueError, LookupError, TypeError):
        told = [message["kwargs"] for message in json.loads(prompt)]
        said = [{"role": each["type"], "content": each["content"]} for each in told]
    # (without what LangChain says of the model: it may have headers and addresses in it)
    return describe({"messages": said, "parameters": {}, "context": None, "strict": None})


def _encode(answers: Sequence[Any]) -> StoredAnswer | None:
    with suppress(Exception):  # (of a class of a user, that may be any)
        told = dumps(list(answers))
        stored = StoredAnswer(told.encode())
        decoded = _decode(stored)
        # (as JSON, too: 1 == 1.0 == True)
        if decoded == list(answers) and dumps(decoded) == told:
            return stored
    return None


def _decode(stored: StoredAnswer) -> Any:
    return _loads(stored.answer.decode(), allowed_objects=CLASSES, secrets_from_env=False)


def _completion(stored: StoredAnswer) -> dict[str, Any]:
    """The model, its tokens and how the answers end, of the integrations that tell."""
    completion: dict[str, Any] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        for said, usage in _told(stored):
            completion |= {"model": said.get("model_name") or said.get("model"), "usage": usage}
            status = said.get("status")
            word = said.get("finish_reason") or said.get("stop_reason")
            if word := word or ("stop" if status == COMPLETED else status):
                completion.setdefault("choices", []).append({"finish_reason": word})
    return completion


def _told(stored: StoredAnswer) -> Iterator[tuple[dict[str, Any], Any]]:
    """What each answer says of itself, and of its tokens."""
    for answer in json.loads(stored.answer):
        message = answer["kwargs"].get("message", {}).get("kwargs", {})
        info = answer["kwargs"].get("generation_info") or {}
        yield info | message.get("response_metadata", {}), message.get("usage_metadata")


FORM: Final = Form("LLMCache of LangChain", "langchain", "langchain", _encode, _decode, _completion)
