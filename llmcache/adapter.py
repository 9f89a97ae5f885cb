"""`DjangoCache`: llmcache's store behind instructor's own cache interface.

For code that is built on ``instructor.from_provider(..., cache=...)``. `llmcache.from_provider`
does more: the adapter is handed a hash and JSON, so it can neither tell what was asked nor check
an answer, and instructor calls it synchronously even from its asynchronous client.

What it is handed is stored in the first of these forms in which it comes back, so that people can
read the entry:

    instructor's  JSON around two texts: the answer, and the provider's response or None
    text          as it is
    a value       as JSON; bytes in it as ``{"llmcache bytes": base64}``
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any, Final

from instructor.cache import BaseCache

from llmcache.aside import Aside, Form
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.equality import same
from llmcache.policy import TTL, UNSET, Policy, Unset

# What is known of the provider of such an entry.
PROVIDER: Final = "instructor"

# The form of an entry, where the fields set of a model would be noted; none: instructor's.
TEXT: Final = b"text"
VALUE: Final = b"value"
# What takes the place of bytes.
BYTES: Final = "llmcache bytes"


class DjangoCache(BaseCache):
    """A cache for ``instructor.from_provider(..., cache=DjangoCache(), cache_namespace="...")``.

    Without ``cache_namespace`` instructor makes up one for each client, and nothing is shared.

    Args:
        namespace: the namespace of the entries, where neither an `override` nor the request names
            another one. Default: ``LLMCACHE["NAMESPACE"]``.
        ttl: how long answers stay fresh when the call names no ``cache_ttl``: seconds, a
            `timedelta`, or None for ever. Default: ``LLMCACHE["TTL"]``.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """

    def __init__(self, namespace: str | Unset = UNSET, ttl: TTL | Unset = UNSET) -> None:
        self._aside = Aside(FORM, Policy().changed(namespace=namespace, ttl=ttl))

    def get(self, key: str) -> Any | None:
        """What was stored under `key`, equal and of the same type; None: a miss, or trouble.

        Raises `InvalidArgument` where ``LLMCACHE["REQUIRE_NAMESPACE"]`` asks for a namespace.
        """
        return self._aside.get(key)

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        """Store `value` for `ttl` seconds; None: as long as this cache was told. Never raises.

        Instructor gives text; None, bool, numbers, text, bytes, and lists and dicts of them will do
        as well. What would come back otherwise (a tuple as a list) is not stored, and what was
        under `key` is gone then.
        """
        self._aside.set(key, value, UNSET if ttl is None else ttl)


def _stored(value: Any) -> StoredAnswer | None:
    """`value` in the first form in which it comes back; None where there is none."""
    for in_form in (_of_instructor, _of_text, _of_value):
        # (of any value: that is what it takes to see that it has not this form)
        with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
            stored = in_form(value)
            if same(_value(stored), value):
                return stored
    return None


def _of_instructor(text: str) -> StoredAnswer:
    parts = json.loads(text)
    raw = parts["raw"]
    response = None if raw is None else Dumped(PROVIDER, raw.encode())
    return StoredAnswer(parts["model"].encode(), response)


def _of_text(text: str) -> StoredAnswer:
    return StoredAnswer(text.encode(), fields_set=TEXT)


def _of_value(value: Any) -> StoredAnswer:
    data = json.dumps(value, default=lambda found: {BYTES: b64encode(found).decode()})
    return StoredAnswer(data.encode(), fields_set=VALUE)


def _value(stored: StoredAnswer) -> Any:
    answer, response = stored.answer.decode(), stored.completion
    if stored.fields_set == TEXT:
        return answer
    if stored.fields_set == VALUE:
        return json.loads(
            answer,
            object_hook=lambda found: b64decode(found[BYTES]) if found.keys() == {BYTES} else found,
        )
    return json.dumps({"model": answer, "raw": response and response.data.decode()})


def _completion(stored: StoredAnswer) -> dict[str, Any]:
    """The provider's response; empty where there is none, or instructor wrote it as Python does."""
    completion = None
    with suppress(ValueError, RecursionError):
        completion = json.loads(stored.completion.data) if stored.completion else None
    return completion if isinstance(completion, dict) else {}


FORM: Final = Form("DjangoCache", "adapter", PROVIDER, _stored, _value, _completion)
