"""What SDKs take that cannot change an answer, and how they mark what is not to be sent."""

from __future__ import annotations

from typing import Any, Final

# Who asks, with which credentials, and how the provider is to go about its own cache.
UNHEARD: Final = frozenset(
    {
        *("api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
        *("azure_ad_token", "azure_ad_token_provider", "vertex_credentials"),
        *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"),
    }
)

# The marks for an argument that is not sent: the package of the class, and its name.
NOT_SENT: Final = frozenset({"NotGiven", "Omit", "Unset"})
SDKS: Final = frozenset(
    {"anthropic", "cerebras", "google", "groq", "mistralai", "openai", "perplexity", "writerai"}
)


def is_not_given(value: Any) -> bool:
    """Whether it is an SDK's mark for an argument that is not sent."""
    kind = type(value)
    return kind.__name__ in NOT_SENT and kind.__module__.partition(".")[0] in SDKS
