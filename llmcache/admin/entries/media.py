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


def is_media(part: dict[str, Any]) -> bool:
    return str(part.get("type")) in TYPES or not {"media_type", "inline_data"}.isdisjoint(part)


def label(part: dict[str, Any]) -> str:
    kind = f"{part.get('type')} {_carried(part)[0]}"
    if "image" in kind:
        return _("Image")
    return _("Sound") if "audio" in kind else _("File")


def describe(part: dict[str, Any]) -> str:
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
