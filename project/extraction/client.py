"""The clients, made once for the process, and where they send what the cache cannot answer.

With ``OPENAI_API_KEY`` in the environment that is the real provider, at ``OPENAI_BASE_URL`` if it
is set, and the model is ``OPENAI_MODEL``. Without a key it is the offline stand-in.
"""

from __future__ import annotations

import os
from typing import Any

import llmcache

STAND_IN = not os.environ.get("OPENAI_API_KEY")
MODEL = os.environ.get("OPENAI_MODEL") or "gpt-4.1-mini"


def _endpoint() -> dict[str, Any]:
    own = os.environ.get("OPENAI_BASE_URL") or None
    if not STAND_IN:
        return {"api_key": os.environ["OPENAI_API_KEY"], "base_url": own}
    # `manage.py demo` says here where its stand-in listens.
    standin = os.environ.get("LLMCACHE_STANDIN_URL") or "http://127.0.0.1:8001/v1"
    return {"api_key": "the stand-in takes any", "base_url": own or standin}


OPTIONS = {"namespace": "extraction", "timeout": 60, "max_retries": 1, **_endpoint()}

client = llmcache.from_provider(f"openai/{MODEL}", **OPTIONS)
async_client = llmcache.from_provider(
    f"openai/{MODEL}",
    async_client=True,
    # Under WSGI every asynchronous request has an event loop of its own, and a connection that
    # was kept alive would be of no use, or worse, in the next one.
    default_headers={"Connection": "close"},
    **OPTIONS,
)
