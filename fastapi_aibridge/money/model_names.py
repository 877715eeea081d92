"""Alternative names of a model, under which a price list may have it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DATE = re.compile(r"[-@](?:20\d{6}|20\d\d-\d\d-\d\d|latest)$")

_PATHS = ("models/", "google/", "publishers/", "projects/", "arn:")
"""Beginnings of models' paths: Gemini's, Vertex AI's (https://cloud.google.com/vertex-ai/generative-ai/docs/start/openai)
and the ARN of a Bedrock profile.
"""


def names_of(model: str) -> Iterator[str]:
    """Yield the requested name, then ever shorter ones: without the suffix `[1m]` of Claude Code, without the path
    (`_PATHS`), and without the date or `latest`.
    """
    yield model
    plain = model
    if model.endswith("]"):
        plain = model.partition("[")[0]
        yield plain
    if plain.startswith(_PATHS):
        plain = plain.rpartition("/")[2]
        yield plain
    undated = _DATE.sub("", plain)
    if undated != plain:
        yield undated
