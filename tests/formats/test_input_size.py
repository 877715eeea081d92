"""The number of tokens that is reserved for the input of a request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fastapi_aibridge.formats.input_size import IMAGE, input_tokens
from fastapi_aibridge.formats.large_text import LARGE
from fastapi_aibridge.formats.scanner import finish

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8000).decode()
WAV = base64.b64encode(b"RIFF\x24\x08\xff\xffWAVEfmt " + bytes(range(256)) * 400).decode()
WEBP = base64.b64encode(b"RIFF\x24\x08\xff\xffWEBPVP8 " + bytes(range(256)) * 400).decode()


def tokens(content: Any, **dumps: Any) -> int:
    return finish(input_tokens(json.dumps({"messages": [{"role": "user", "content": content}]}, **dumps).encode()))


def chat(image: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image}}


IMAGES = {
    "chat": chat(f"data:image/png;base64,{PNG}"),
    "responses": {"type": "input_image", "image_url": f"data:image/jpeg;base64,{JPEG}"},
    "webp": chat(f"data:image/webp;base64,{WEBP}"),
    "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    "data first": {"type": "image", "source": {"data": PNG, "media_type": "image/png", "type": "base64"}},
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("dumps", [{}, {"separators": (",", ":")}, {"indent": 1}], ids=["spaced", "dense", "indented"])
def test_an_image_counts_as_an_image_however_many_bytes_it_has(image: dict[str, Any], dumps: dict[str, Any]) -> None:
    assert IMAGE <= tokens([image], **dumps) < IMAGE + 200
    assert 3 * IMAGE <= tokens([image] * 3, **dumps) < 3 * IMAGE + 500


def test_slashes_may_be_escaped() -> None:
    """An image is recognised in JSON with escaped slashes, as PHP writes it."""
    body = json.dumps([IMAGES["chat"], IMAGES["responses"]]).replace("/", "\\/").encode()
    assert 2 * IMAGE <= finish(input_tokens(body)) < 2 * IMAGE + 200


@pytest.mark.parametrize(
    "content",
    [
        f"read this: data:image/png;base64,{PNG}",
        json.dumps(IMAGES["chat"]),
        [{"type": "text", "text": f"data:image/png;base64,{PNG}"}],
        [{"type": "document", "source": {"type": "text", "data": "iVBORw0KGgo " + "some words " * 20_000}}],
        [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0" + PNG}}],
        [{"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}],
    ],
    ids=["text", "an image within a text", "text part", "document", "pdf", "audio"],
)
def test_what_the_model_reads_as_something_else_counts_by_its_bytes(content: Any) -> None:
    assert tokens(content) >= len(PNG) // 3


def test_what_is_written_into_a_cache_counts_as_more() -> None:
    """Text with a cache lifetime counts 1.25 or 2 times, in large requests too."""
    for words in ("word " * 100, "word " * LARGE):
        plain = tokens(words)
        for ttl, times in ((None, 1.25), ("1h", 2)):
            cached = tokens([{"type": "text", "text": words, "cache_control": {"type": "ephemeral", "ttl": ttl}}])
            assert times * plain <= cached < times * plain + 120
