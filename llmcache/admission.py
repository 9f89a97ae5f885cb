"""Which answers are kept: not those that the provider cut short, refused or filtered.

They are returned to the caller as they are; only the store does not take them, since the same
question asked again may well be answered in full.
"""

from __future__ import annotations

from typing import Any

from llmcache.conf import settings

# Why the provider stopped, in the words of OpenAI, Anthropic and OpenAI's Responses.
TRUNCATED = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"}
)
FILTERED = frozenset({"content_filter"})
REFUSED = frozenset({"refusal"})


def why_not_admitted(answer: Any, completion: Any) -> str:
    """Why this answer is not to be kept; empty when it is."""
    stops = _stop_reasons(completion)
    if stops & TRUNCATED:
        return "the answer was cut short by the limit of tokens"
    if stops & FILTERED:
        return "the provider filtered the answer"
    if stops & REFUSED or _refusals(completion):
        return "the model refused to answer"
    admit = settings.admit
    if admit is not None and not admit(answer, completion):
        return "LLMCACHE['ADMIT'] did not admit the answer"
    return ""


def _stop_reasons(completion: Any) -> set[Any]:
    incomplete = getattr(completion, "incomplete_details", None)
    reasons = {getattr(completion, "stop_reason", None), getattr(incomplete, "reason", None)}
    return reasons | {getattr(choice, "finish_reason", None) for choice in _choices(completion)}


def _refusals(completion: Any) -> list[Any]:
    messages = [getattr(choice, "message", None) for choice in _choices(completion)]
    # OpenAI's Responses: a part of an output item.
    parts = [
        part
        for item in _listed(getattr(completion, "output", None))
        for part in _listed(getattr(item, "content", None))
    ]
    refusals = [getattr(holder, "refusal", None) for holder in (*messages, *parts)]
    return [refusal for refusal in refusals if refusal]


def _choices(completion: Any) -> list[Any]:
    return _listed(getattr(completion, "choices", None))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
