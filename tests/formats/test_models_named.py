"""The models that a request names."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats.models_named import models_anywhere, models_asked_for
from fastapi_aibridge.formats.scanner import finish
from tests import processor_time
from tests.processor_time import least


def asked(body: Any) -> set[str]:
    return finish(models_asked_for(body if isinstance(body, bytes) else json.dumps(body).encode()))


def anywhere(body: bytes, path: str = "/v1/batches") -> set[str]:
    return finish(models_anywhere(path, body))


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ({"model": "a"}, {"a"}),
        ({"model": "a", "messages": [{"model": "no", "content": {"model": "no"}}]}, {"a"}),
        ({"model": "a", "models": ["b", "c"]}, {"a", "b", "c"}),
        ({"model": "a", "models": None, "fallback_model": "b"}, {"a", "b"}),
        ({"model": "a", "fallbacks": [{"model": "b", "max_tokens": 1}, "c"]}, {"a", "b", "c"}),
        ({"model": "a", "tools": [{"type": "image_generation", "model": "b"}, {"type": "x"}]}, {"a", "b"}),
        ({"model": "a", "tools": [{"name": "f", "input_schema": {"properties": {"model": "no"}}}]}, {"a"}),
        ({"prompt": {"id": "p"}}, {""}),
        ({"model": "a", "models": [3]}, {"a", ""}),
        ({"model": "a", "models": [["b"]]}, {"a", ""}),
        ({"model": "x" * 257}, {""}),
        (b'{"mod\\u0065l": "\\u0061"}', {"a"}),
        (b'{"model": "a", "tools": [{"mod\\u0065l": "b"}]}', {"a", "b"}),
        (b'{"model": "a", "tools": [{"Model": "b"}]}', {"a", "b"}),
        (b'\xef\xbb\xbf{"model": "a"}', {"a"}),
        ({"model": "a", "models": ["b"], "pad": ["x" * 100] * 10_000}, {"a", "b"}),
    ],
)
def test_what_a_request_asks_for(body: Any, models: set[str]) -> None:
    """The model, its fallbacks and the models of tools are found; names within messages are not."""
    assert asked(body) == models


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model": "a", "model": "b"}', b'{"model": "a", "Model": "b"}', b'{"model": "\xff"}']
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    """A body with duplicate members, or one that is no valid JSON object, is refused with 400."""
    with pytest.raises(GatewayError) as caught:
        asked(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (b'{"requests": [{"params": {"model": "a"}}, {"params": {"model" : "b"}}]}', {"a", "b"}),
        (b'{"body": {"model": "a"}}\n{"body": {"model": "b"}}\n', {"a", "b"}),
        (b'{"m\\u006fdel"\n:\t"\\u0061"}', {"a"}),
        (b'{"x": "v", ":\\"": 1, "model": "a"}', {"a"}),
        (b'{"MODEL": "a"}', {"a"}),
        (b'{"model": {"x": 1}, "remodel": "b", "text": "the \\"model\\": c"}', set()),
        (b"", set()),
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--', {"whisper-1"}),
        (b"--b\nContent-Disposition: form-data; name=model\nX: y\n\nwhisper-1\n--b--", {"whisper-1"}),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\0\1\2\r\n--b--', set()),
        ('{"model": "a"}'.encode("utf-16-le"), {""}),
        (b" " * 70_000 + b'{"model"' + b" " * 70_000 + b': "a"}', {"a"}),
    ],
)
def test_what_any_body_names(body: bytes, models: set[str]) -> None:
    """Models are found in JSON at any depth, in JSON lines and in forms."""
    assert anywhere(body) == models


@pytest.mark.parametrize("shift", range(65_520, 65_545))
def test_a_name_across_two_steps(shift: int) -> None:
    """A name is found wherever the steps of the search end."""
    assert anywhere(b" " * shift + b'{"model": "a"}') == {"a"}
    assert anywhere(b"--b" + b" " * shift + b'\r\nX: form-data; name="model"\r\n\r\na\r\n') == {"a"}


def test_a_model_in_the_path() -> None:
    """Models in the path are found, as Gemini and Azure write them."""
    assert anywhere(b"{}", "/v1beta/models/gemini-2.5-pro:generateContent") == {"gemini-2.5-pro"}
    assert anywhere(b"{}", "/openai/deployments/gpt-5/images/generations") == {"gpt-5"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b",".join(b'{"model": "m%d"}' % n for n in range(300)) + b"]}",
        b'{"model": "a", "models": [' + b",".join(b'"m%d"' % n for n in range(300)) + b"]}",
    ],
)
def test_a_request_for_very_many(body: bytes) -> None:
    """A request that names more than 256 models is refused before they are looked up."""
    with pytest.raises(GatewayError, match="more than 256"):
        anywhere(body) and asked(body)


@pytest.mark.parametrize(
    "piece",
    [b"name=model\n", b'"model"' + b" " * 50, b'"model":', b'"\\"\\', b'"', b"name=model;\r\n" * 3, b"\\", b'\\"'],
)
def test_each_step_is_short(piece: bytes) -> None:
    """The search takes time linear in the length of a hostile body, and no step over 20 ms."""
    body = piece * (4_000_000 // len(piece))
    assert least(lambda: longest_step(body), 0.02) < 0.02
    assert least(lambda: processor_time.of(lambda: longest_step(body)), 8) < 8


def longest_step(body: bytes) -> float:
    longest, steps = 0.0, models_anywhere("/v1/x", body)
    with contextlib.suppress(GatewayError, StopIteration):
        while True:
            begun = time.thread_time()
            next(steps)
            longest = max(longest, time.thread_time() - begun)
    return longest
