"""Images, sounds and files of a message, in words: what they are, and their address or size.

They are never loaded: an address in a prompt may be anybody's.
"""

from __future__ import annotations

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
