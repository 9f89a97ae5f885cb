"""An entry's bytes made readable: what was asked, and what was answered.

Reading for people, not for serving: nothing is validated against a response model, and an entry
that cannot be opened is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from llmcache.admin.entries.conversation import (
    Image,
    Message,
    Part,
    system_message,
)
from llmcache.admin.entries.over_http import INSTRUCTIONS, read_conversation, read_said
from llmcache.admin.entries.texts import Text, code, code_of, parse, words
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, REQUEST, unseal
from llmcache.exceptions import CorruptEntry
from llmcache.flow.replay import HTTP
from llmcache.models import CacheEntry

# Why a row cannot be opened: it is damaged, or sealed with a key that the settings do not name.
CLOSED: Final = (CorruptEntry, ImproperlyConfigured, ValueError)

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

    messages: list[Message]
    parameters: Text | None = None
    context: Text | None = None
    more: Text | None = None

    def __post_init__(self) -> None:
        for number, part in enumerate(self._images(), start=1):
            part.number = number

    def image(self, number: int) -> Image | None:
        """The image with this number; None when there is none."""
        return next((part.image for part in self._images() if part.number == number), None)

    def _images(self) -> list[Part]:
        return [part for message in self.messages for part in message.parts if part.image]


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
    is_list: bool
    #: Of an answer that came over HTTP: the messages in it. Its JSON is the provider's response.
    said: list[Message]


def open_request(entry: CacheEntry) -> Any:
    """The stored request as a value; None when there is none. Raises what `CLOSED` names."""
    if entry.request is None:
        return None
    return parse(unseal(REQUEST, entry.key, bytes(entry.request)).body)


def open_answer(key: str, payload: Any) -> StoredAnswer:
    """Raises what `CLOSED` names."""
    return StoredAnswer.unpack(unseal(ANSWER, key, bytes(payload)).body)


def read_question(entry: CacheEntry) -> Question | Unreadable | None:
    """What was asked; None when requests are not stored."""
    try:
        request = open_request(entry)
    except CLOSED as error:
        return Unreadable(str(error))
    if entry.request is None:
        return None
    if not isinstance(request, dict):
        return Question([], more=_given(request))
    parameters = request.pop("parameters", None) or {}
    if not isinstance(parameters, dict):
        parameters = {"parameters": parameters}
    # (instructor was told this beside the parameters)
    if (strict := request.pop("strict", None)) is not None:
        parameters["strict"] = strict
    instructions = [
        system_message(parameters.pop(name)) for name in INSTRUCTIONS if parameters.get(name)
    ]
    return Question(
        messages=instructions + read_conversation(request.pop("messages", None)),
        parameters=_given(parameters or None),
        context=_given(request.pop("context", None)),
        more=_given(request or None),
    )


def read_answer(entry: CacheEntry) -> Answer | Unreadable:
    try:
        stored = open_answer(entry.key, entry.payload)
    except CLOSED as error:
        return Unreadable(str(error))
    answer, is_http = parse(stored.answer), entry.mode == HTTP
    return Answer(
        outline=_fields(answer) if _size(answer) <= OUTLINE_FIELDS else (),
        json=code_of(stored.answer),
        completion=None if is_http else _dumped(stored.completion),
        usage=_dumped(stored.total_usage),
        is_list=isinstance(answer, list),
        said=read_said(answer) if is_http else [],
    )


def _given(value: Any) -> Text | None:
    return None if value is None else code(value)


def _dumped(dumped: Dumped | None) -> Text | None:
    return code_of(dumped.data) if dumped else None


def _size(value: Any, depth: int = 0) -> int:
    """How many fields a value has in all; too many where it is too deep."""
    if not isinstance(value, dict | list) or not value:
        return 0
    if depth == OUTLINE_DEPTH:
        return OUTLINE_FIELDS + 1
    inside = value.values() if isinstance(value, dict) else value
    return len(value) + sum(_size(each, depth + 1) for each in inside)


def _fields(value: Any) -> tuple[Field, ...]:
    if isinstance(value, list):
        value = {str(number): item for number, item in enumerate(value, start=1)}
    return tuple(map(_field, value, value.values())) if isinstance(value, dict) else ()


def _field(name: str, value: Any) -> Field:
    if isinstance(value, dict | list) and value:
        return Field(name, fields=_fields(value), is_list=isinstance(value, list))
    return Field(name, words(value) if isinstance(value, str) else code(value))
