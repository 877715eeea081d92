"""References in a request to objects that are stored at the provider."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats import responses
from fastapi_aibridge.formats.references import Reference, made_in, references_in
from fastapi_aibridge.formats.scanner import finish

from .parsing import parse


def named(body: object) -> list[tuple[str, str]]:
    return [(one.kind, one.id) for one in finish(references_in(json.dumps(body).encode()))]


@pytest.mark.parametrize(
    ("members", "references"),
    [
        ({"previous_response_id": "resp_1"}, [("response", "resp_1")]),
        ({"previous_response_id": None, "conversation": None}, []),
        ({"conversation": "conv_1"}, [("conversation", "conv_1")]),
        ({"conversation": {"id": "conv_1"}}, [("conversation", "conv_1")]),
        ({"conversation": {}}, [("conversation", "")]),
        ({"previous_response_id": 5}, [("response", "")]),
        ({"previous_response_id": "x" * 600}, [("response", "")]),
        ({"input": "resp_1"}, []),
        ({"input": [{"type": "item_reference", "id": "a"}, {"id": "b"}]}, [("item", "a"), ("item", "b")]),
        ({"items": [{"type": "item_reference", "id": "msg_1"}]}, [("item", "msg_1")]),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, [("item", "ig_1")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, [("item", "rs_1")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": ""}]}, [("item", "rs_1")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"}]}, []),
        ({"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": []}]}, []),
        ({"input": [{"role": "user", "id": "msg_1", "content": "id"}]}, []),
        ({"input": [{"type": "function_call", "id": "fc_1", "call_id": "c", "arguments": "{}"}]}, []),
        ({"input": [{"type": "message", "content": [{"id": "x"}]}, None, 5, "id", [{"id": "y"}]]}, []),
        ({"input": [{"type": "item_reference", "id": None}]}, []),
        ({"metadata": {"previous_response_id": "resp_1", "conversation": "conv_1"}}, []),
    ],
)  # fmt: skip
def test_what_is_named(members: dict[str, Any], references: list[tuple[str, str]]) -> None:
    """Responses and conversations are found by their members, and items unless they carry their own content."""
    assert named(members) == references
    request = parse(responses, json.dumps({"model": "gpt-5", **members}).encode())
    assert request.references == ([] if "items" in members else [Reference(*one) for one in references])


@pytest.mark.parametrize(
    "body",
    [
        rb'{"previous\u005fresponse_id": "resp_1"}',
        rb'{"input": [{"type": "item_reference", "\u0069d": "resp_1"}]}',
        rb'{"input": [{"type": "item_reference", "id": "resp\u005f1"}]}',
        b'\xef\xbb\xbf {"previous_response_id": "resp_1"}',
        rb'{"conversation": {"i\u0064": "resp_1"}}',
    ],
)
def test_escapes_hide_nothing(body: bytes) -> None:
    """References are found in JSON with escapes and a byte order mark."""
    assert [id_ for _, id_ in finish(references_in(body))] == ["resp_1"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"previous_response_id": "resp_1", "previous_response_id": "resp_2"}',
        b'{"conversation": {"id": "a", "id": "b"}}',
        b'{"input": [{"type": "item_reference", "id": "a", "id": "b"}]}',
        b'[{"previous_response_id": "resp_1"}]',
        b"previous_response_id=resp_1",
        '{"previous_response_id": "resp_1"}'.encode("utf-16"),
        '{"previous_response_id": "resp_1"}'.encode("utf-16-le"),
        b'{"previous_response_id": "resp_1"',
        json.dumps({"input": [{"type": "item_reference", "id": str(number)} for number in range(1002)]}).encode(),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    """A body that a provider might read differently from the gateway is refused with 400."""
    with pytest.raises(GatewayError) as refused:
        finish(references_in(body))
    assert refused.value.status == 400


def test_an_empty_body_names_nothing() -> None:
    """An empty body names nothing: a conversation can be created with it."""
    assert finish(references_in(b"")) == finish(references_in(b" \n")) == []


@pytest.mark.parametrize(
    ("answer", "ids"),
    [
        (b'{"id": "conv_1", "object": "conversation"}', ["conv_1"]),
        (b'{"object": "list", "data": [{"id": "a"}, {"id": 5}, {}, {"id": "b"}]}', ["a", "b"]),
        (b'{"id": ""}', []),
        (b'{"id": "%s"}' % (b"x" * 600), []),
        (b"no JSON", []),
        (b"[]", []),
    ],
)
def test_what_was_made(answer: bytes, ids: list[str]) -> None:
    """The ids of one created object, or of each in a list, are read; an invalid response gives none."""
    assert made_in(answer, "item") == [Reference("item", id_) for id_ in ids]


def test_of_a_list_without_end_only_so_much_is_written_down() -> None:
    answer = json.dumps({"object": "list", "data": [{"id": f"i{number}"} for number in range(5000)]}).encode()
    assert len(made_in(answer, "item")) == 1000
