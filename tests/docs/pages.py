"""The documentation as data: pages, their blocks of code, links and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
OWN = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
"""All pages."""

_FENCE = re.compile(
    r"^```(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<default>[^|]*?) \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. Its title is the file's name, or `<file>, continued`."""

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["title"] or "", found["code"])
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> Iterator[str]:
    """The targets of all links within the project."""
    for found in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page))):
        if not re.match(r"[a-z]+:", found["target"]):
            yield found["target"]


def anchors(page: Path) -> set[str]:
    """The anchors of the page: its headings, named as Python-Markdown does."""
    plain = (re.sub(r"[^\w\s-]", "", found["text"]).strip().lower() for found in _HEADING.finditer(prose(page)))
    return {re.sub(r"[\s-]+", "-", text) for text in plain}


def rows(page: Path) -> dict[str, str]:
    """The rows of the tables that begin with code: the first cell without backticks, and the second."""
    return {found["name"]: found["default"].strip() for found in _ROW.finditer(page.read_text())}
