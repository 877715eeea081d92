"""Estimates the most input tokens of a request from its bytes: no tokenizer is fast enough for that."""

from __future__ import annotations

import re

from .large_text import STEP, BodyText, Steps, contains

BYTES_OF_A_TOKEN = 3
"""Bytes of a request's JSON per token, which is safe for prose; digits and rare scripts may have fewer."""
IMAGE = 5000
"""The most tokens of one image, however many bytes it has. Claude counts up to 4,784, OpenAI up to 3,779
(https://docs.claude.com/en/docs/build-with-claude/vision, https://platform.openai.com/docs/guides/images-vision).
"""
SMALL = IMAGE * BYTES_OF_A_TOKEN
"""Bytes up to which a request or an image needs no separate estimate for images."""

_IMAGE = re.compile(
    rb'"(?:url|image_url|data)"\s{0,8}:\s{0,8}"(?:data:image\\?/[A-Za-z.+-]{1,16};base64,)?'
    rb"(?=iVBORw0KGgo|\\?/9j\\?/|R0lGOD|UklGR(?:\\?[A-Za-z0-9+/]){6}XRUJQ)"
)
"""Matches a member up to the base64 of a PNG, JPEG, GIF or WebP; a WAV file begins like the last. Within a text, the
quotes would have backslashes before them.
"""
_LONGEST = 96
"""The most bytes that the expression matches."""


def input_tokens(body: BodyText) -> Steps[int]:
    """Return the input tokens to reserve. Writing a prompt cache costs more, and counts as more tokens."""
    size = len(body)
    given = -(-size // BYTES_OF_A_TOKEN) if size <= SMALL else (yield from _around_images(body))
    if not (yield from contains(body, (b'"cache_control"',), 0, size)):
        return given
    return given * 2 if (yield from contains(body, (b'"1h"',), 0, size)) else given * 5 // 4


def _around_images(body: BodyText) -> Steps[int]:
    """Return the input tokens, of which each large image has a fixed number."""
    size = len(body)
    text, images = size, 0
    at = 0
    while at < size:
        found = _IMAGE.search(body, at, min(size, at + STEP + _LONGEST))
        if found is None:
            at += STEP
        else:
            at = yield from _end_of_string(body, found.end())
            length = at - found.end()
            if length > SMALL and not (yield from contains(body, (b" ",), found.end(), at)):
                text -= length
                images += 1
        yield
    return -(-text // BYTES_OF_A_TOKEN) + images * IMAGE


def _end_of_string(body: BodyText, begin: int) -> Steps[int]:
    while begin < len(body):
        end = body.find(b'"', begin, begin + STEP)
        if end >= 0:
            return end
        begin += STEP
        yield
    return len(body)
