"""An entry's bytes made readable: what was asked, and what was answered.

Reading for people, not for serving: nothing is validated against a response model, and an entry
that cannot be opened is said to be so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured

from llmcache.admin.entries.conversation import Message, numbered, read_messages, system_message
from llmcache.admin.entries.media import Image
from llmcache.admin.entries.texts import Text, code, code_of, parse, words
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, REQUEST, unseal
from llmcache.exceptions import CorruptEntry
from llmcache.models import CacheEntry

Readable = TypeVar("Readable")

# Parameters that are instructions to the model, and so belong to the conversation.
INSTRUCTIONS: Final = ("system", "instructions")

# An answer with more, or deeper, is easier to read as JSON.
OUTLINE_FIELDS: Final = 200
OUTLINE_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that cannot be opened, and the reason."""

    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked. What was not sent is None."""

    messages: tuple[Message, ...]
    parameters: Text | None = None
    context: Text | None = None
    more: Text | None = None

    def image(self, number: int) -> Image | None:
        """The image with this number; None when there is none."""
        parts = (part for message in self.messages for part in message.parts)
        return next((part.image for part in parts if part.number == number), None)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an answer: it has a value, or fields of its own."""

    name: str
    value: Text | None = None
    fields: tuple[Field, ...] = ()
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; `outline` is empty when the answer is too large or too deep for one."""

    outline: tuple[Field, ...]
    json: Text
    completion: Text | None
    usage: Text | None
    is_list: bool = False


def read_question(entry: CacheEntry) -> Question | Unreadable | None:
    """What was asked; None when requests are not stored."""
    request = entry.request
    if request is None:
        return None
    return _opened(lambda: _question(unseal(REQUEST, entry.key, bytes(request)).body))


def read_answer(entry: CacheEntry) -> Answer | Unreadable:
    return _opened(lambda: _answer(unseal(ANSWER, entry.key, bytes(entry.payload)).body))


def _opened(read: Callable[[], Readable]) -> Readable | Unreadable:
    try:
        return read()
    except (CorruptEntry, ImproperlyConfigured, ValueError) as error:
        return Unreadable(str(error))


def _question(body: bytes) -> Question:
    request = parse(body)
    if not isinstance(request, dict):
        return Question((), more=_given(request))
    parameters = _parameters(request)
    instructions = tuple(
        system_message(parameters.pop(name)) for name in INSTRUCTIONS if parameters.get(name)
    )
    return Question(
        messages=numbered(instructions + read_messages(request.pop("messages", None))),
        parameters=code(parameters) if parameters else None,
        context=_given(request.pop("context", None)),
        more=_given(request or None),
    )


def _parameters(request: dict[str, Any]) -> dict[str, Any]:
    """Takes the parameters out of `request`, with what instructor was told beside them."""
    parameters = request.pop("parameters", None) or {}
    strict = request.pop("strict", None)
    if not isinstance(parameters, dict):
        parameters = {"parameters": parameters}
    return parameters if strict is None else {**parameters, "strict": strict}


def _given(value: Any) -> Text | None:
    return None if value is None else code(value)


def _answer(body: bytes) -> Answer:
    stored = StoredAnswer.unpack(body)
    answer = parse(stored.answer)
    return Answer(
        outline=_outline(answer),
        json=code_of(stored.answer),
        completion=_dumped(stored.completion),
        usage=_dumped(stored.total_usage),
        is_list=isinstance(answer, list),
    )


def _dumped(dumped: Dumped | None) -> Text | None:
    return code_of(dumped.data) if dumped else None


def _outline(answer: Any) -> tuple[Field, ...]:
    if not isinstance(answer, dict | list) or not _is_simple(answer):
        return ()
    return _fields(answer if isinstance(answer, dict) else _numbered(answer))


def _is_simple(value: Any) -> bool:
    """Whether all of it lies within the bounds, level by level."""
    level, fields = [value], 0
    for _depth in range(OUTLINE_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        fields += len(level)
        if not level or fields > OUTLINE_FIELDS:
            break
    return not level


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _fields(value: dict[str, Any]) -> tuple[Field, ...]:
    return tuple(_field(name, inner) for name, inner in value.items())


def _field(name: str, value: Any) -> Field:
    if isinstance(value, dict) and value:
        return Field(name, fields=_fields(value))
    if isinstance(value, list) and value:
        return Field(name, fields=_fields(_numbered(value)), is_list=True)
    return Field(name, words(value) if isinstance(value, str) else code(value))


def _numbered(items: list[Any]) -> dict[str, Any]:
    return {str(number): item for number, item in enumerate(items, start=1)}
