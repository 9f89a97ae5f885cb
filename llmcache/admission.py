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

# The events of streams, in the words of Anthropic and of OpenAI's Responses.
REFUSING = frozenset({"response.refusal.delta", "response.refusal.done"})
COMPLETED = frozenset({"message_stop", "response.completed"})


def why_not_admitted(answer: Any, completion: Any) -> str:
    """Why this answer is not to be kept; empty when it is."""
    if refusal := _why_unfinished(_stop_reasons(completion), _refusals(completion)):
        return refusal
    admit = settings.admit
    if admit is not None and not admit(answer, completion):
        return "LLMCACHE['ADMIT'] did not admit the answer"
    return ""


def why_chunk_not_admitted(chunk: Any) -> str:
    """Why a stream with this chunk is not to be kept; empty when nothing in it speaks against."""
    refusals = _refusals(chunk) + _refusals(getattr(chunk, "response", None))
    if getattr(chunk, "type", None) in REFUSING:
        refusals.append(chunk)
    return _why_unfinished(_chunk_stop_reasons(chunk), refusals)


def is_end(chunk: Any) -> bool:
    """Whether the chunk says that the stream's answer is complete."""
    stopped = any(reason is not None for reason in _chunk_stop_reasons(chunk))
    return stopped or getattr(chunk, "type", None) in COMPLETED


def _why_unfinished(stops: set[Any], refusals: list[Any]) -> str:
    if stops & TRUNCATED:
        return "the answer was cut short by the limit of tokens"
    if stops & FILTERED:
        return "the provider filtered the answer"
    if stops & REFUSED or refusals:
        return "the model refused to answer"
    return ""


def _chunk_stop_reasons(chunk: Any) -> set[Any]:
    # Anthropic's are in the delta, those of OpenAI's Responses in the response.
    holders = (chunk, getattr(chunk, "delta", None), getattr(chunk, "response", None))
    return {reason for holder in holders for reason in _stop_reasons(holder)}


def _stop_reasons(completion: Any) -> set[Any]:
    incomplete = getattr(completion, "incomplete_details", None)
    reasons = {getattr(completion, "stop_reason", None), getattr(incomplete, "reason", None)}
    return reasons | {getattr(choice, "finish_reason", None) for choice in _choices(completion)}


def _refusals(completion: Any) -> list[Any]:
    # (In a chunk of a stream, a choice has a delta.)
    messages = [
        getattr(choice, name, None)
        for choice in _choices(completion)
        for name in ("message", "delta")
    ]
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
