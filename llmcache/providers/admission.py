"""Which answers are kept: those of which the provider says that they are whole.

The others are returned to the caller as they are; only the store does not take them, since the same
question asked again may well be answered in full. Providers and gateways have many words for an
answer that is not whole, and new ones come; so the words that are known are those for one that is.

A completion is read as an object of its SDK or as the JSON of one. What has none of the shapes
below, as the response of a function of one's own, has no ending to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import Enum
from typing import Any, Final

from llmcache.conf import settings
from llmcache.reasons import Reason, ReasonCode

# In lower case, since gateways pass them on in any.
FINISHED: Final = frozenset(
    {
        *("stop", "tool_calls", "function_call"),  # OpenAI and who speaks like it; Gemini
        *("end_turn", "tool_use", "stop_sequence"),  # Anthropic, Bedrock
        *("complete", "tool_call"),  # Cohere
        *("reason_stop", "reason_tool_calls"),  # xAI
    }
)
# Of OpenAI's Responses, whose word for it is a status.
COMPLETED: Final = "completed"
UNDERWAY: Final = frozenset({"in_progress", "queued"})

# What some of the other words mean.
TRUNCATED: Final = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"),
        *("model_length", "reason_max_len", "reason_max_context"),
    }
)
FILTERED: Final = frozenset(
    {
        *("content_filter", "content_filtered", "guardrail_intervened", "safety", "recitation"),
        *("prohibited_content", "blocklist", "spii"),
    }
)
MEANINGS: Final = (
    (TRUNCATED, ReasonCode.CUT_SHORT),
    (FILTERED, ReasonCode.FILTERED),
    ({"refusal"}, ReasonCode.REFUSED),
)

# Where the word stands: in each part of a completion (as its `finish_reason`), or in all of it.
PARTS: Final = ("choices", "candidates")
IN_ALL: Final = ("finish_reason", "stop_reason", "stopReason")
# Gemini's STOP, as its older SDKs have it in their JSON.
STOP_NUMBER: Final = 1
# A word that may be shown: it is the provider's, and so could be anything.
SHOWN: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")

# Events of streams, in the words of OpenAI's Responses.
REFUSING: Final = frozenset({"response.refusal.delta", "response.refusal.done"})
COMPLETING: Final = "response.completed"
FAILING: Final = frozenset({"response.failed", "response.incomplete"})

# What says that a value is the completion of some provider, where that is not known.
OBJECTS: Final = frozenset({"chat.completion", "text_completion", "response"})
SIGNATURES: Final = (
    ("stopReason", "output"),
    ("stop_reason", "role", "content"),
    ("candidates", "usage_metadata"),
    ("finish_reason", "message", "usage"),
)

# Of the classes of Pydantic's models, and of dataclasses.
FIELDS: Final = ("__pydantic_fields__", "__dataclass_fields__")

ABSENT: Final = object()


def why_not_admitted(answer: Any, completion: Any) -> Reason | None:
    """Why this answer is not to be kept; None when it is."""
    if refusal := why_unfinished(completion):
        return refusal
    admit = settings.admit
    if admit is not None and not admit(answer, completion):
        return ReasonCode.NOT_ADMITTED()
    return None


def why_unfinished(completion: Any) -> Reason | None:
    """Why `completion` is not whole; None when it is, or has no ending to judge."""
    return _why_not_good(_endings(completion)) or _why_off(completion)


def has_ending(completion: Any) -> bool:
    """Whether it is of a shape that tells how it has ended."""
    return bool(_endings(completion))


def why_chunk_not_admitted(chunk: Any) -> Reason | None:
    """Why a stream with this chunk is not to be kept; None when nothing in it speaks against."""
    chunk = _content(chunk)
    kind = read(chunk, "type")
    if kind in REFUSING:
        return ReasonCode.REFUSED()
    if kind == "error":
        return ReasonCode.PROVIDER_ERROR()
    endings = _chunk_endings(chunk)
    if kind != COMPLETING:
        endings = [ending for ending in endings if _word(ending) not in UNDERWAY]
    if kind in FAILING:
        endings.append(kind.rpartition(".")[2])
    return _why_not_good(endings) or _why_off(chunk, read(chunk, "response"))


def ends_in(chunk: Any) -> dict[int, bool]:
    """The answers that a chunk of a stream is of, by their numbers, and which it ends well.

    A stream may be of several (``n=2``), and each has an end of its own.
    """
    chunk = _content(chunk)
    if parts := _parts(chunk):
        found = {}
        for at, part in enumerate(parts):
            index, ending = read(part, "index"), _ending_of(part)
            found[at if index is None else index] = bool(ending) and not _why_not_good([ending])
        return found
    endings = _chunk_endings(chunk)
    is_end = bool(endings) or read(chunk, "type") == COMPLETING
    return {0: True} if is_end and not _why_not_good(endings) else {}


def completions_in(answer: Any) -> Iterator[Any]:
    """The completions that a function's answer is, holds anywhere inside, or was made of."""
    if (raw := getattr(answer, "_raw_response", None)) is not None:
        yield raw
    elif _is_completion(answer):
        yield answer
    else:
        for child in _held(answer):
            yield from completions_in(child)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | Set):
        return value
    is_model = any(hasattr(type(value), name) for name in FIELDS)
    return vars(value).values() if is_model and hasattr(value, "__dict__") else ()


def _is_completion(value: Any) -> bool:
    if not isinstance(value, Mapping) and not hasattr(value, "__dict__"):
        return False
    kind = read(value, "object")
    return (isinstance(kind, str) and kind in OBJECTS) or any(
        all(read(value, name, ABSENT) is not ABSENT for name in names) for names in SIGNATURES
    )


def _endings(completion: Any) -> list[Any]:
    """The provider's word for each ending, None where it has said none.

    Nothing at all: the completion is of no known shape.
    """
    is_named = read(completion, "object") == "response"
    if is_named or read(completion, "incomplete_details", ABSENT) is not ABSENT:
        return _endings_of_response(completion)
    said = [read(completion, name, ABSENT) for name in IN_ALL]
    words = [word for word in said if word is not ABSENT and word is not None]
    words += map(_ending_of, _parts(completion))
    places = [*said, *(read(completion, name, ABSENT) for name in PARTS)]
    return words or [None] * any(place is not ABSENT for place in places)


def _endings_of_response(response: Any) -> list[Any]:
    """OpenAI's: its status and those of its items, as of a message that was cut short."""
    items = _listed(read(response, "output"))
    told = [read(item, "status") for item in items]
    statuses = [read(response, "status"), *(status for status in told if status is not None)]
    reason = read(read(response, "incomplete_details"), "reason")
    words = ["stop" if _word(status) == COMPLETED else status for status in statuses]
    return [reason, *words] if reason else words


def _ending_of(part: Any) -> Any:
    return read(part, "finish_reason") or read(part, "finishReason")


def _content(chunk: Any) -> Any:
    """What an event of a stream is about: Mistral's hold a chunk."""
    data = read(chunk, "data")
    return data if read(data, "choices") else chunk


def _chunk_endings(chunk: Any) -> list[Any]:
    # Anthropic's and Cohere's are in the delta, those of OpenAI's Responses in the response.
    holders = (chunk, read(chunk, "delta"), read(chunk, "response"))
    return [ending for holder in holders for ending in _endings(holder) if ending]


def _why_not_good(endings: list[Any]) -> Reason | None:
    for word in map(_word, endings):
        if word in FINISHED or word in settings.finished_reasons:
            continue
        if not word:
            return ReasonCode.UNSAID()
        shown = word if SHOWN.fullmatch(word) else "a word that cannot be shown"
        meaning = next((code for words, code in MEANINGS if word in words), ReasonCode.UNFINISHED)
        return meaning(word=shown)
    return None


def _word(ending: Any) -> str:
    if isinstance(ending, Enum):
        ending = ending.value if isinstance(ending.value, str) else ending.name
    if ending is None or isinstance(ending, str):
        return (ending or "").lower()
    return "stop" if type(ending) is int and ending == STOP_NUMBER else type(ending).__name__


def _why_off(*holders: Any) -> Reason | None:
    """Why it is not to be kept although it has ended well: an error inside, or a refusal."""
    for holder in holders:
        parts = _parts(holder)
        if any(read(value, "error") for value in (holder, *parts)):
            return ReasonCode.PROVIDER_ERROR()
        # (In a chunk of a stream, a choice has a delta.)
        said = [read(part, name) for part in parts for name in ("message", "delta")]
        for item in _listed(read(holder, "output")):  # (of OpenAI's Responses)
            said += _listed(read(item, "content"))
        if any(read(value, "refusal") for value in said):
            return ReasonCode.REFUSED()
    return None


def _parts(completion: Any) -> list[Any]:
    return [part for name in PARTS for part in _listed(read(completion, name))]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def read(holder: Any, name: str, default: Any = None) -> Any:
    """What `holder`, an object of an SDK or its JSON, has under this name."""
    if isinstance(holder, Mapping):
        return holder.get(name, default)
    return getattr(holder, name, default)
