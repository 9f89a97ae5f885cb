"""Messages as people read them: who speaks, and what they say.

The spellings of OpenAI, Anthropic and Gemini are known. Whatever else a message holds, or a
redactor made of it, is shown as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin.entries import media
from llmcache.admin.entries.media import Image
from llmcache.admin.entries.texts import Text, code, code_of, words

ROLES: Final[dict[str, tuple[str, Promise]]] = {
    "system": ("system", gettext_lazy("System")),
    "developer": ("system", gettext_lazy("Developer")),
    "user": ("user", gettext_lazy("User")),
    "assistant": ("assistant", gettext_lazy("Assistant")),
    "model": ("assistant", gettext_lazy("Assistant")),
    "tool": ("tool", gettext_lazy("Tool")),
    "function": ("tool", gettext_lazy("Tool")),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message; `label` says what it is, unless it is plain words.

    `image` is one that can be shown, and `number` says which of the conversation it is.
    """

    text: Text
    label: str = ""
    image: Image | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said. `kind` is one of a few words that the style sheet knows."""

    kind: str
    speaker: str
    parts: tuple[Part, ...]


def read_messages(messages: Any) -> tuple[Message, ...]:
    return tuple(_message(message) for message in _listed(messages))


def numbered(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same messages, each image with its number, from 1."""
    numbers = count(1)
    return tuple(
        replace(
            message,
            parts=tuple(
                replace(part, number=next(numbers)) if part.image else part
                for part in message.parts
            ),
        )
        for message in messages
    )


def system_message(content: Any) -> Message:
    """Instructions that a provider takes beside the messages, as Anthropic does with ``system``."""
    return Message("system", str(ROLES["system"][1]), tuple(_parts(content)))


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return Message("other", _("Message"), tuple(_parts(message)))
    rest = dict(message)
    kind, speaker = _speaker(rest.pop("role"), rest.pop("name", None))
    # Gemini calls the content of a message its parts.
    parts = [*_parts(rest.pop("content", None)), *_parts(rest.pop("parts", None))]
    parts += map(_tool_call, _listed(rest.pop("tool_calls", None)))
    more = {name: value for name, value in rest.items() if value is not None}
    if more:
        parts.append(Part(code(more), _("Also sent")))
    return Message(kind, speaker, tuple(parts))


def _speaker(role: str, name: Any) -> tuple[str, str]:
    kind, label = ROLES.get(role, ("other", role))
    return kind, f"{label} ({name})" if isinstance(name, str) else str(label)


def _parts(content: Any) -> Iterator[Part]:
    for piece in _listed(content):
        if isinstance(piece, str):
            yield Part(words(piece))
        else:
            yield _known_part(piece) or Part(code(piece))


def _known_part(piece: Any) -> Part | None:
    if not isinstance(piece, dict):
        return None
    if media.is_media(piece):
        described = media.describe(piece)
        if not described:
            return None
        return Part(words(described), media.label(piece), media.image_of(piece))
    # Gemini's texts have no type.
    read = PARTS.get(str(piece.get("type", "text")))
    return read(piece) if read else None


def _text(piece: dict[str, Any]) -> Part | None:
    is_plain = piece.keys() <= {"type", "text"}
    return _said(piece.get("text")) if is_plain else None


def _thinking(piece: dict[str, Any]) -> Part | None:
    return _said(piece.get("thinking"), _("Thinking"))


def _refusal(piece: dict[str, Any]) -> Part | None:
    return _said(piece.get("refusal"), _("Refusal"))


def _said(text: Any, label: str = "") -> Part | None:
    return Part(words(text), label) if isinstance(text, str) else None


def _tool_use(piece: dict[str, Any]) -> Part:
    return Part(code(piece.get("input")), _tool_label(piece.get("name")))


def _tool_result(piece: dict[str, Any]) -> Part:
    label = _("Result of a tool")
    content = piece.get("content")
    return _said(content, label) or Part(code(content), label)


def _tool_call(call: Any) -> Part:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return Part(code(call), _tool_label(None))
    arguments = function.get("arguments")
    text = code_of(arguments) if isinstance(arguments, str) else code(arguments)
    return Part(text, _tool_label(function.get("name")))


def _tool_label(name: Any) -> str:
    return _("Call of the tool %(name)s") % {"name": name} if name else _("Call of a tool")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


PARTS: Final[dict[str, Callable[[dict[str, Any]], Part | None]]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "thinking": _thinking,
    "refusal": _refusal,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}
