"""The recipes for other libraries, which are not installed here; `make recipes` runs them."""

from __future__ import annotations

import pytest

from .pages import DOCS, ROOT, blocks

RECIPES = [block for block in blocks(DOCS / "in-process.md") if block.title.startswith("with_")]


@pytest.mark.parametrize("title", ["with_langchain.py", "with_pydantic_ai.py", "with_instructor.py"])
def test_a_recipe_is_what_was_run(title: str) -> None:
    """The page shows the code of the file that `make recipes` runs."""
    [block] = [block for block in RECIPES if block.title == title]
    assert block.code in (ROOT / "examples" / "recipes" / title).read_text(encoding="utf-8")
