"""Messages as people read them: who speaks, and what they say.

The spellings of OpenAI, Anthropic and Gemini are known. Whatever else a message holds, or a
redactor made of it, is shown as JSON.

Of images, sounds and files it is said what they are, with their address or size. An image that is
in the message itself can be shown. What is elsewhere is never loaded: an address in a prompt may be
anybody's.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

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

# Types of the parts that carry media; instructor's own have none.
TYPES: Final = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document"}
)

# Where providers put what is carried: in a part of the part or in itself, under such a name.
CARRIERS: Final = ("image_url", "source", "input_audio", "file", "inline_data")
TEXT_TYPES: Final = frozenset({"text", "input_text", "output_text"})
# What providers send along where there is nothing to say.
NOTHING: Final[tuple[Any, ...]] = (None, [])
CONTENTS: Final = ("data", "file_data")
ADDRESSES: Final = ("url", "image_url", "file_url", "file_id", "source")
MEDIA_TYPES: Final = ("media_type", "mime_type", "format", "filename")

# How the images begin that every browser shows and that hold no script, as SVG may.
# (https://mimesniff.spec.whatwg.org/#image-type-pattern-matching-algorithm)
SHOWN: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"RIFF": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be shown; its type is that of its bytes, whatever the message says."""

    media_type: str
    content: bytes


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
    more = _said(rest)
    if more:
        parts.append(Part(code(more), _("Also sent")))
    return Message(kind, speaker, parts)


def _parts(content: Any) -> list[Part]:
    return [_part(piece) for piece in _listed(content)]


def _part(piece: Any) -> Part:
    match piece:
        case str():
            return Part(words(piece))
        case dict() if _is_media(piece) and (described := _describe(piece)):
            return Part(words(described), _media_label(piece), image_of(piece))
        case {"text": str(text)} if _is_plain_text(piece):
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


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in NOTHING}


def _is_plain_text(piece: dict[str, Any]) -> bool:
    """Whether there is nothing to it but its text. (Gemini's have no type.)"""
    more = {**_said(piece), "text": ""}
    return str(more.pop("type", "text")) in TEXT_TYPES and more == {"text": ""}


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


def _is_media(part: dict[str, Any]) -> bool:
    return str(part.get("type")) in TYPES or not {"media_type", "inline_data"}.isdisjoint(part)


def _media_label(part: dict[str, Any]) -> str:
    kind = f"{part.get('type')} {_carried(part)[0]}"
    if "image" in kind:
        return _("Image")
    return _("Sound") if "audio" in kind else _("File")


def _describe(part: dict[str, Any]) -> str:
    """Type and size of what is carried, or its address; empty when there is neither."""
    media_type, content, address = _carried(part)
    if not content:
        return address
    size = filesizeformat(len(content.rstrip("=")) * 3 // 4)
    return f"{media_type}, {size}" if media_type else size


def image_of(part: dict[str, Any]) -> Image | None:
    """The image that `part` carries itself; None when it carries none that can be shown."""
    try:
        content = b64decode(_carried(part)[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    for beginning, media_type in SHOWN.items():
        if content.startswith(beginning):
            return Image(media_type, content)
    return None


def _carried(part: dict[str, Any]) -> tuple[str, str, str]:
    """Its type, its content in base64, and its address; what is not there is empty."""
    carrier = next((part[name] for name in CARRIERS if isinstance(part.get(name), dict)), part)
    media_type, content, address = (
        next(
            (value for name in names if (value := carrier.get(name)) and isinstance(value, str)), ""
        )
        for names in (MEDIA_TYPES, CONTENTS, ADDRESSES)
    )
    for url in (content, address):
        if url.startswith("data:"):
            head, _comma, data = url.removeprefix("data:").partition(",")
            return head.partition(";")[0], data, ""
    return media_type, content, address
