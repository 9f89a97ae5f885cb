"""Messages as people read them: who speaks, and what they say.

The spellings of OpenAI, Anthropic and Gemini are known. Whatever else a message holds, or a
redactor made of it, is shown as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(slots=True)
class Part:
    """A piece of a message; `label` says what it is, unless it is plain words.

    `image` is one that can be shown, and `number` says which of the conversation it is, from 1.
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
    parts: list[Part]


def read_messages(messages: Any) -> list[Message]:
    return [_message(message) for message in _listed(messages)]


def system_message(content: Any) -> Message:
    """Instructions that a provider takes beside the messages, as Anthropic does with ``system``."""
    return _message({"role": "system", "content": content})


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return Message("other", _("Message"), _parts(message))
    rest = dict(message)
    role, name = rest.pop("role"), rest.pop("name", None)
    kind, label = ROLES.get(role, ("other", role))
    speaker = f"{label} ({name})" if isinstance(name, str) else str(label)
    # Gemini calls the content of a message its parts.
    parts = _parts(rest.pop("content", None)) + _parts(rest.pop("parts", None))
    parts += map(_tool_call, _listed(rest.pop("tool_calls", None)))
    more = {name: value for name, value in rest.items() if value is not None}
    if more:
        parts.append(Part(code(more), _("Also sent")))
    return Message(kind, speaker, parts)


def _parts(content: Any) -> list[Part]:
    return [_part(piece) for piece in _listed(content)]


def _part(piece: Any) -> Part:
    match piece:
        case str():
            return Part(words(piece))
        case dict() if media.is_media(piece) and (described := media.describe(piece)):
            return Part(words(described), media.label(piece), media.image_of(piece))
        case {"type": "text" | "input_text" | "output_text", "text": str(text), **more} if not more:
            return Part(words(text))
        case {"text": str(text), **more} if not more:  # Gemini's have no type
            return Part(words(text))
        case {"type": "thinking", "thinking": str(text)}:
            return Part(words(text), _("Thinking"))
        case {"type": "refusal", "refusal": str(text)}:
            return Part(words(text), _("Refusal"))
        case {"type": "tool_use"}:
            return Part(code(piece.get("input")), _tool_label(piece.get("name")))
        case {"type": "tool_result"}:
            result = piece.get("content")
            shown = words(result) if isinstance(result, str) else code(result)
            return Part(shown, _("Result of a tool"))
    return Part(code(piece))


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
