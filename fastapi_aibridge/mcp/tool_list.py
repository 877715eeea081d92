"""A server's list of tools, read leniently, tool by tool, and within bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map

from ..masking import Masker
from ..tool_schemas.visible_text import clean, shown

MAX_TOOLS = 512
MAX_SIZE = 1024 * 1024
"""Bytes of all definitions together."""
MAX_LISTED = 4 * MAX_TOOLS
"""Entries that are examined, including unusable ones and those that the patterns exclude."""
MAX_REMARKS = 50
"""Remarks about one list."""
MAX_NAME = 128
"""Characters of a name, as the specification allows. The patterns of the settings search all of it."""
MAX_DESCRIPTION = 16 * 1024
"""Characters."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """One tool as its server lists it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    encoded_schema: bytes
    repeatable: bool
    """Whether the server says that running it again does no harm."""
    headers: Mapping[tuple[str, ...], str]
    """Arguments that the later protocol repeats in headers: the path of each, and its header."""


class ToolList:
    """The tools on all pages of a list. An unusable tool is left out without affecting the others."""

    def __init__(self, offers: Callable[[str], bool], *, later: bool) -> None:
        self._offers = offers
        self._later = later
        self._size = 0
        self._looked_at = 0
        self.full = False
        self.tools: dict[str, ListedTool] = {}
        self.remarks: list[str] = []

    def add(self, page: Mapping[str, Any]) -> None:
        """Add the tools of one page that the patterns of the settings let through."""
        listed = page.get("tools")
        if not isinstance(listed, list):
            self._remark("a page of its tools has none")
            return
        for number, one in enumerate(listed[:MAX_LISTED]):
            self._looked_at += 1
            self.full = self.full or self._looked_at > MAX_LISTED
            if self.full:
                return
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or not name:
                self._remark(f"the tool at place {number} has no name and is left out")
            elif len(name) > MAX_NAME:
                self._remark(f"its tool {shown(name)} is left out: a name has at most {MAX_NAME} characters")
            elif name not in self.tools and self._offers(name):
                self._add(name, one)

    def _remark(self, remark: str) -> None:
        if len(self.remarks) < MAX_REMARKS:
            self.remarks.append(remark)

    def _add(self, name: str, one: Mapping[str, Any]) -> None:
        schema = one.get("inputSchema")
        if schema is None:
            schema = {"type": "object", "properties": {}}
            self._remark(f"its tool {shown(name)} has no schema: it is offered without parameters")
        encoded, problem = _encoded(schema)
        if not problem and self._later and find_invalid_x_mcp_header(schema) is not None:
            problem = "its x-mcp-header are not valid, and the protocol says to drop it then"
        if problem:
            self._remark(f"its tool {shown(name)} is left out: {problem}")
            return
        description = clean(one.get("description") or _title(one), MAX_DESCRIPTION)
        self._size += len(encoded) + len(description) + len(name)
        if len(self.tools) == MAX_TOOLS or self._size > MAX_SIZE:
            self.full = True
            limit = f"{MAX_TOOLS} tools and {MAX_SIZE} bytes"
            self._remark(f"its tool {shown(name)} and all behind it are left out: {limit} are read at most")
            return
        self.tools[name] = ListedTool(
            name=name,
            description=description,
            schema=schema,
            encoded_schema=encoded,
            repeatable=_repeatable(one.get("annotations")),
            headers=x_mcp_header_map(schema) if self._later else {},
        )


def masked_tool(tool: ListedTool, masker: Masker) -> ListedTool:
    """Return the tool without the credentials that its server repeats."""
    description = masker.text(tool.description)
    if description == tool.description and masker.text(encoded := tool.encoded_schema.decode()) == encoded:
        return tool
    schema = masker.json(tool.schema)
    return replace(tool, description=description, schema=schema, encoded_schema=orjson.dumps(schema))


def _encoded(schema: object) -> tuple[bytes, str]:
    """Return the schema as JSON, and what is wrong with it; empty if nothing is."""
    if not isinstance(schema, dict):
        return b"", "its schema is no object"
    try:
        encoded = orjson.dumps(schema)
    except TypeError:
        return b"", "its schema is nested too deeply"
    return encoded, "its schema is too large" if len(encoded) > MAX_SIZE else ""


def _title(tool: Mapping[str, Any]) -> object:
    annotations = tool.get("annotations")
    return tool.get("title") or (annotations.get("title") if isinstance(annotations, dict) else None)


def _repeatable(annotations: object) -> bool:
    return isinstance(annotations, dict) and (
        annotations.get("readOnlyHint") is True or annotations.get("idempotentHint") is True
    )
