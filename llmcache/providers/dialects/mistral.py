"""Mistral's completions that fill in the middle; its chat and embeddings are as OpenAI's."""

from __future__ import annotations

import re
from typing import Final

from llmcache.providers.dialects.base import Dialect
from llmcache.providers.dialects.openai import CHAT, assembled_chat

FIM: Final = Dialect(
    "mistral",
    re.compile(r"/fim/completions$"),
    ("prompt", "suffix"),
    shape=CHAT.shape,
    assembled=assembled_chat,
    last=b"[DONE]",
)
DIALECTS: Final = (FIM,)
