"""Follows each page from top to bottom, and checks that it works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge import AIBridge, Principal
from fastapi_aibridge.testing import Received, Reply, ScriptedProvider, override_providers

from .pages import DOCS, OWN, README, ROOT, blocks
from .running import Reader

FOLLOWED = [page for page in OWN if any(block.language in ("python", "sh", "toml") for block in blocks(page))]

HTTP_API = DOCS / "http-api.md"
TUTORIAL = DOCS / "tutorial.md"
ANSWERS = {
    README: ["You said: Hello", "You said: A joke about cats"],
    TUTORIAL: ["You said: Hello", "You said: How are you?", '"initiator_id":"ann"', '"name":"house"'],
}
"""The expected output of a page's commands."""


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(page: Path, reader: Reader) -> None:
    """Every Python block runs, every curl request succeeds, every TOML block validates, and every test passes."""
    reader.follow(page)
    for said in ANSWERS.get(page, ()):
        assert said in reader.output
    assert page != TUTORIAL or reader.tested == ["test_app.py"]


def test_a_websocket_knows_its_caller(reader: Reader) -> None:
    """The WebSocket of the page on principals greets the user of its token."""
    reader.follow(DOCS / "principals.md")
    ann = {"Authorization": "Bearer token-of-ann"}
    with TestClient(reader.names["app"], headers=ann) as client, client.websocket_connect("/ws") as websocket:
        assert websocket.receive_text() == "hello, ann"


def test_a_session_ends_before_the_provider_is_called(reader: Reader) -> None:
    """A database session of function scope ends before the provider is called; one of request scope lasts longer."""
    happened: list[str] = []

    async def open_session() -> AsyncIterator[None]:
        yield
        happened.append("session ended")

    async def open_request() -> AsyncIterator[None]:
        yield
        happened.append("request ended")

    async def current_principal(
        session: None = Depends(open_session, scope="function"), request: None = Depends(open_request)
    ) -> Principal:
        return Principal("ann")

    def script(received: Received) -> Reply:
        happened.append("provider called")
        return Reply("Hello")

    aibridge = AIBridge(principal=current_principal)
    app = FastAPI()
    app.include_router(aibridge.router)
    with override_providers(aibridge, ScriptedProvider(script)), TestClient(app) as client:
        client.post("/openai/v1/responses", json={"model": "gpt-5", "input": "Hi", "stream": True}).raise_for_status()
    assert happened == ["session ended", "provider called", "request ended"]


def test_json_blocks_are_json() -> None:
    """Each JSON block is valid JSON."""
    shown = [block for page in OWN for block in blocks(page) if block.language == "json"]
    assert shown
    for block in shown:
        assert orjson.loads(block.code), block.place


def test_a_gateway_error_looks_as_it_is_shown(reader: Reader) -> None:
    """The gateway responds with the two error bodies of the page on the HTTP API."""
    app = FastAPI()
    app.include_router(AIBridge().router)
    openai, anthropic = (orjson.loads(block.code) for block in blocks(HTTP_API) if block.language == "json")
    with TestClient(app, headers={"X-Api-Key": "key-of-alice"}) as client:
        assert client.get("/opnai/v1/models").json() == openai
        assert client.get("/antropic/v1/messages/x").json() == anthropic
