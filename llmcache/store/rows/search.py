"""The text of a prompt, for finding it by its words.

Only where prompts may be at rest as they were sent: ``STORE_REQUESTS`` is ``"full"`` and nothing is
encrypted. A redactor decides what of a request is kept for people to read; that is not searched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from django.db import connections

from llmcache.codec.envelope import REQUEST, unseal
from llmcache.conf import settings
from llmcache.exceptions import CorruptEntry
from llmcache.store.rows.columns import text

# PostgreSQL takes a megabyte of words and their places; no text of so many characters has more.
LONGEST_SEARCHED: Final = 100_000

# Parameters that are instructions to the model, or what it was asked in the place of messages.
PARAMETERS: Final = ("system", "instructions", "input")
# Images and files, which are no words.
BINARY: Final = re.compile(r"data:|[A-Za-z0-9+/_=-]{200}")


def are_searchable() -> bool:
    """Whether the settings let prompts be found by their words."""
    return settings.store_requests == "full" and not settings.encryption_keys


def prompt_of(key: str, sealed: bytes | None) -> str | None:
    """The text of a sealed request that may be searched; None when there is none."""
    if sealed is None or not are_searchable():
        return None
    try:
        request = json.loads(unseal(REQUEST, key, sealed).body)
    except (CorruptEntry, ValueError, RecursionError):
        return None
    found = "\n".join(_texts(_asked(request)))[:LONGEST_SEARCHED]
    return text(found) or None


def _asked(request: Any) -> Any:
    """The parts of a request in which the words are."""
    if not isinstance(request, dict):
        return None
    messages, parameters = request.get("messages"), request.get("parameters")
    if not messages:
        return parameters  # the arguments of a decorated function
    instructions = parameters if isinstance(parameters, dict) else {}
    return [*(instructions.get(name) for name in PARAMETERS), *_contents(messages)]


def _contents(messages: Any) -> Iterator[Any]:
    for message in messages if isinstance(messages, list) else [messages]:
        if isinstance(message, dict):
            yield {name: value for name, value in message.items() if name not in ("role", "type")}
        else:
            yield message


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not BINARY.match(value):
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name != "type":
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def can_search(alias: str) -> bool:
    """Whether the database behind `alias` finds prompts by their words."""
    return connections[alias].vendor == "postgresql"
