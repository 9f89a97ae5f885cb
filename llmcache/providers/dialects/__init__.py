"""The dialects: how providers are asked over HTTP, and how they answer.

Each module has those of one provider; `base` says what a dialect tells. Which one a request is in,
its address says: gateways and servers of one's own speak them under other names.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from llmcache.providers.dialects import anthropic, cohere, google, mistral, openai
from llmcache.providers.dialects.base import Batch, Dialect, Event, Kind, OutOfOrder, events_in
from llmcache.providers.dialects.shapes import fits

__all__ = [
    "Batch",
    "Dialect",
    "Event",
    "Kind",
    "OutOfOrder",
    "dialect_of",
    "events_in",
    "fits",
    "provider_at",
]

# (Mistral's before OpenAI's: its address ends like one of those)
DIALECTS: Final = (
    *mistral.DIALECTS,
    *openai.DIALECTS,
    *anthropic.DIALECTS,
    *google.DIALECTS,
    *cohere.DIALECTS,
)

# Whose addresses these are, by the end of the host. They name the provider of an entry, and so its
# prices; elsewhere that is whose dialect is spoken.
HOSTS: Final = {
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "openai.azure.com": "azure",
    "openrouter.ai": "openrouter",
}


@lru_cache(maxsize=1000)
def dialect_of(path: str) -> Dialect | None:
    """In which dialect a request is that is posted to this path; None: in none that is known."""
    return next((dialect for dialect in DIALECTS if dialect.path.search(path)), None)


@lru_cache(maxsize=1000)
def provider_at(host: str, dialect: Dialect) -> str:
    """The provider that is asked at `host`, in `dialect`."""
    known = (name for end, name in HOSTS.items() if host == end or host.endswith(f".{end}"))
    return next(known, dialect.provider)
