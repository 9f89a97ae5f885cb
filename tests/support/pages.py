"""README.md and the pages of docs/, taken apart: blocks of code, tables, and what is neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

# The manual, page by page.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "index.md",
    *sorted(
        page
        for part in ("how-to", "reference", "explanation")
        for page in (ROOT / "docs" / part).glob("*.md")
    ),
]
# (their examples are run in environments of their own: see `framework_pages`)
OF_FRAMEWORKS = sorted((ROOT / "docs" / "how-to" / "frameworks").glob("*.md"))
MANUAL = "\n".join(page.read_text() for page in PAGES)

FIRST_CALL = "The first call"

Namespace = dict[str, Any]

COMMANDS = sorted(
    path.stem for path in (ROOT / "llmcache" / "management" / "commands").glob("llmcache_*.py")
)


@dataclass(frozen=True)
class Block:
    """A fenced block, the page and the heading it stands under, and its first line in the page."""

    page: Path
    heading: str
    language: str
    line: int
    code: str

    @property
    def file(self) -> str | None:
        """The file that the block is said to stand in, by a comment in its first line."""
        named = re.match(r"# (\S+\.py)\n", self.code)
        return named and named[1]


def blocks_of(page: Path) -> Iterator[Block]:
    heading, start = "", 0
    language: str | None = None
    code: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if language is not None:
            if line == "```":
                yield Block(page, heading, language, start, "\n".join(code) + "\n")
                language = None
            else:
                code.append(line)
        elif line.startswith("```"):
            language, start, code = line.removeprefix("```"), number + 1, []
        elif line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
    assert language is None, f"a block is not closed in {page}"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def prose(text: str) -> str:
    """`text` without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


PROSE = prose(MANUAL)


def section(heading: str, text: str = PROSE) -> str:
    """The text between this heading and the next."""
    [found] = re.findall(rf"^#+ `?{heading}`?\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


def table(heading: str, text: str = PROSE) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(heading, text).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_column(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(heading)]


def commands() -> list[str]:
    """Every command line in the shell blocks, without its comment."""
    lines = (line.split("  #")[0].strip() for block in SHELL for line in block.code.splitlines())
    return [line.split(" # ")[0].strip() for line in lines if line]


def execute(block: Block, namespace: Namespace) -> None:
    """Run a block as a part of the module that has this namespace."""
    # Tracebacks show the lines of the page.
    code = "\n" * (block.line - 1) + block.code
    exec(compile(code, block.page, "exec", dont_inherit=True), namespace)
