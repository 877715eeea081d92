"""What the pages say works: each is followed from its top to its end."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from fastapi.testclient import TestClient

from .pages import DOCS, OWN, README, ROOT, blocks
from .running import Reader

FOLLOWED = [page for page in OWN if any(block.language in ("python", "sh", "toml") for block in blocks(page))]

TUTORIAL = DOCS / "tutorial.md"
ANSWERS = {
    README: ["You said: Hello", "You said: A joke about cats"],
    TUTORIAL: ["You said: Hello", "You said: How are you?", '"initiator_id":"ann"', '"name":"house"'],
}
"""What the commands of a page must have printed."""


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(page: Path, reader: Reader) -> None:
    """Every Python block runs, every request by curl is answered, every TOML block validates, every test passes."""
    reader.follow(page)
    for said in ANSWERS.get(page, ()):
        assert said in reader.output
    assert page != TUTORIAL or reader.tested == ["test_app.py"]


def test_json_blocks_are_json() -> None:
    """What is shown as JSON can be read as such."""
    shown = [block for page in OWN for block in blocks(page) if block.language == "json"]
    assert shown
    for block in shown:
        assert orjson.loads(block.code), block.place


def test_a_gateway_error_looks_as_it_is_shown(reader: Reader) -> None:
    """The two error bodies in the page on clients are what the gateway answers."""
    from fastapi import FastAPI

    from fastapi_aibridge import AIBridge

    app = FastAPI()
    app.include_router(AIBridge().router)
    openai, anthropic = (orjson.loads(block.code) for block in blocks(DOCS / "clients.md") if block.language == "json")
    with TestClient(app, headers={"X-Api-Key": "key-of-alice"}) as client:
        assert client.get("/opnai/v1/models").json() == openai
        assert client.get("/antropic/v1/messages/x").json() == anthropic
