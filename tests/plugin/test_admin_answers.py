"""The responses of the admin routes match the app's OpenAPI document."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from fastapi.testclient import TestClient

from .apps import ADMIN, ALICE, ASK, CHAT, Model

JSON = "application/json"


@pytest.fixture
def document(model: Model) -> dict[str, Any]:
    return model.app().openapi()


def closed(schema: Any) -> Any:
    """The schema without members beyond those that it lists."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(one) for name, one in schema.items()}
    if "properties" in inner and "additionalProperties" not in inner:
        inner["additionalProperties"] = False
    return inner


def check(document: dict[str, Any], method: str, path: str, status: int, answer: object) -> None:
    content = document["paths"][f"/ai{path}"][method.lower()]["responses"][str(status)]["content"]
    schema = {**closed(content[JSON]["schema"]), "components": closed(document["components"])}
    jsonschema_rs.validate(schema, answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/reload"),
        ("GET", "/admin/pool"),
        ("GET", "/admin/providers"),
        ("GET", "/admin/interceptions"),
        ("GET", "/admin/interceptions/{interception_id}"),
        ("GET", "/admin/usage"),
    ],
)
def test_each_answer_is_of_its_shape(model: Model, document: dict[str, Any], method: str, path: str) -> None:
    """Each response, including refusals, has exactly the documented members."""
    with TestClient(model.app()) as client:
        done = client.post(CHAT, json=ASK, headers=ALICE).headers["x-aibridge-interception-id"]
        client.post("/ai/anthropic/v1/messages", json=ASK, headers=ALICE)
        url = f"/ai{path.replace('{interception_id}', done)}"
        query = "?by=day&by=initiator_id&by=provider&by=model&by=client" if path.endswith("usage") else ""
        answer = client.request(method, url + query, headers=ADMIN)
        assert answer.status_code == 200
        check(document, method, path, 200, answer.json())
        check(document, method, path, 401, client.request(method, url).json())
        check(document, method, path, 422, client.request(method, f"{url}?nonsense=1", headers=ADMIN).json())


def test_a_record_that_there_is_not(model: Model, document: dict[str, Any]) -> None:
    """An unknown record is a 404 in the documented shape."""
    with TestClient(model.app()) as client:
        answer = client.get("/ai/admin/interceptions/none", headers=ADMIN)
        check(document, "GET", "/admin/interceptions/{interception_id}", 404, answer.json())
