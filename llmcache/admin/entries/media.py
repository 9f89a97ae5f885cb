"""Images, sounds and files of a message: what they are in words, with their address or size.

An image that is in the message itself can be shown. What is elsewhere is never loaded: an address
in a prompt may be anybody's.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

# Types of the parts that carry media; instructor's own have none.
TYPES: Final = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document"}
)

# Where providers put what is carried: in a part of the part or in itself, under such a name.
CARRIERS: Final = ("image_url", "source", "input_audio", "file", "inline_data")
CONTENTS: Final = ("data", "file_data")
ADDRESSES: Final = ("url", "image_url", "file_url", "file_id", "source")

# How the images begin that every browser shows and that hold no script, as SVG may.
# (https://mimesniff.spec.whatwg.org/#image-type-pattern-matching-algorithm)
SHOWN: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"RIFF", "image/webp"),
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be shown; its type is that of its bytes, whatever the message says."""

    media_type: str
    content: bytes


def is_media(part: dict[str, Any]) -> bool:
    return str(part.get("type")) in TYPES or not {"media_type", "inline_data"}.isdisjoint(part)


def label(part: dict[str, Any]) -> str:
    kind = f"{part.get('type')} {_media_type(_carrier(part))}"
    if "image" in kind:
        return _("Image")
    return _("Sound") if "audio" in kind else _("File")


def describe(part: dict[str, Any]) -> str:
    """Type and size of what is carried, or its address; empty when there is neither."""
    carrier = _carrier(part)
    content = _first(carrier, CONTENTS)
    address = _first(carrier, ADDRESSES)
    for url in (content, address):
        if url.startswith("data:"):
            head, _comma, data = url.removeprefix("data:").partition(",")
            return _in_words(head.partition(";")[0], data)
    return _in_words(_media_type(carrier), content) if content else address


def image_of(part: dict[str, Any]) -> Image | None:
    """The image that `part` carries itself; None when it carries none that can be shown."""
    carrier = _carrier(part)
    for value in (_first(carrier, CONTENTS), _first(carrier, ADDRESSES)):
        data = value.partition(",")[2] if value.startswith("data:") else value
        try:
            content = b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            continue
        for beginning, media_type in SHOWN:
            if content.startswith(beginning):
                return Image(media_type, content)
    return None


def _carrier(part: dict[str, Any]) -> dict[str, Any]:
    return next((part[name] for name in CARRIERS if isinstance(part.get(name), dict)), part)


def _media_type(carrier: dict[str, Any]) -> str:
    return _first(carrier, ("media_type", "mime_type", "format", "filename"))


def _first(carrier: dict[str, Any], names: tuple[str, ...]) -> str:
    values = (carrier.get(name) for name in names)
    return next((value for value in values if value and isinstance(value, str)), "")


def _in_words(media_type: str, base64: str) -> str:
    size = filesizeformat(len(base64.rstrip("=")) * 3 // 4)
    return f"{media_type}, {size}" if media_type else size
