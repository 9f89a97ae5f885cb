"""The example texts, from the files next to this module.

Each file begins with a title, the response model that fits, and the language of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf.locale import LANG_INFO

FOLDER = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """A text to try, and what it is."""

    slug: str
    title: str
    model: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{LANG_INFO[self.language]['name']}: {self.title}"


@cache
def examples() -> dict[str, Example]:
    """All of them, by their slugs, in the order of the files."""
    return {file.stem: _read(file) for file in sorted(FOLDER.glob("*.txt"))}


def _read(file: Path) -> Example:
    head, _, text = file.read_text(encoding="utf-8").partition("\n\n")
    described = dict(line.split(": ", 1) for line in head.splitlines())
    return Example(slug=file.stem, text=text.strip(), **described)
