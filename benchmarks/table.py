"""A table of results: as markdown, and between the markers in a page that carry the table's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and their column heads; columns of numbers are aligned to the right."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table, with its note below."""
        numeric = [all(re.match(r"[-+\d]", row[index]) for row in self.rows) for index in range(len(self.columns))]
        lines = [self.columns, ["---:" if right else "---" for right in numeric], *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{text}\n\n{self.note}" if self.note else text

    def write(self, page: Path) -> None:
        """Replace the text between `<!-- name -->` and `<!-- /name -->` in the page.

        Raises `ValueError` if the page has no such markers.
        """
        text = page.read_text(encoding="utf-8")
        begin, end = f"<!-- {self.name} -->", f"<!-- /{self.name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{page} has no place for {self.name!r}: add {begin} and {end}")
        head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
        page.write_text(f"{head}\n\n{self.markdown()}\n\n{tail}", encoding="utf-8")
