"""The clients, made once for the process, and where they send what the cache cannot answer."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings

import llmcache

STAND_IN = not settings.OPENAI_API_KEY
MODEL: str = settings.OPENAI_MODEL


def _endpoint() -> dict[str, Any]:
    own = os.environ.get("OPENAI_BASE_URL")
    if not STAND_IN:
        return {"api_key": settings.OPENAI_API_KEY, "base_url": own}
    # `manage.py demo` says here where its stand-in listens; the settings are read before it starts.
    standin = os.environ.get("LLMCACHE_STANDIN_URL", settings.STANDIN_URL)
    return {"api_key": "the stand-in takes any", "base_url": own or standin}


ENDPOINT = _endpoint()

client = llmcache.from_provider(
    f"openai/{MODEL}", namespace="extraction", timeout=60, max_retries=1, **ENDPOINT
)
async_client = llmcache.from_provider(
    f"openai/{MODEL}",
    async_client=True,
    namespace="extraction",
    timeout=60,
    max_retries=1,
    # Under WSGI every asynchronous request has an event loop of its own, and a connection that
    # was kept alive would be of no use, or worse, in the next one.
    default_headers={"Connection": "close"},
    **ENDPOINT,
)
