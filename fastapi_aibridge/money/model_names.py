"""The names under which a price list may have a model that a request calls otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DATE = re.compile(r"[-@](?:20\d{6}|20\d\d-\d\d-\d\d|latest)$")


def names_of(model: str) -> Iterator[str]:
    """The model's name as the request has it, then ever less of it: without the `[1m]` that Claude Code writes behind
    it, the way to it (`models/` of Gemini, the ARN of a Bedrock profile), and its date.
    """
    yield model
    plain = model
    if model.endswith("]"):
        plain = model.partition("[")[0]
        yield plain
    if plain.startswith(("models/", "arn:")):
        plain = plain.rpartition("/")[2]
        yield plain
    undated = _DATE.sub("", plain)
    if undated != plain:
        yield undated
