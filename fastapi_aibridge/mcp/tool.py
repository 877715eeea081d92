"""One tool as it is offered to models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Tool:
    """`name` is what models call, `tool` what the server calls it.

    Equal tools are one object for all principals: `input_schema` is only for reading.
    """

    name: str
    server: str
    tool: str
    description: str
    input_schema: Mapping[str, Any] = field(repr=False)
