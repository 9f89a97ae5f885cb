"""A text as a reader sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

HTML = re.compile(
    r"<(?:html|body|div|p|br|table|td|span|script|style|a|h[1-6])\b[^>]{0,500}>", re.IGNORECASE
)


def readable(text: str) -> str:
    """The text as a reader sees it: without markup, scripts and marks of direction."""
    if HTML.search(text):
        parser = _Plain()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    return text.translate(_INVISIBLE).strip()


# Marks of direction and of order. The joiners stay: Persian words and emoji are made with them.
_INVISIBLE = dict.fromkeys(
    (0x200B, 0x200E, 0x200F, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)


class _Plain(HTMLParser):
    unread = frozenset(("script", "style", "title", "head"))
    breaks = frozenset(("p", "div", "br", "tr", "li", "h1", "h2", "h3", "table", "ul", "ol"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._unread_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread_depth += tag in self.unread
        if tag in self.breaks:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unread:
            self._unread_depth = max(0, self._unread_depth - 1)
        if tag in ("td", "th"):
            self.parts.append("\t")
        elif tag in self.breaks:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unread_depth:
            self.parts.append(data)
