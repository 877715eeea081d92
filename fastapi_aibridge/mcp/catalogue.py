"""The tools of all principals. Equal tools are one object, however many principals see them."""

from __future__ import annotations

import hashlib
from weakref import WeakValueDictionary

from ..tool_schemas import offered_schema
from ..tool_schemas.visible_text import shown
from ..tools import Tool
from .health import ServerHealth
from .tool_list import ListedTool


class ToolCatalogue:
    def __init__(self, health: ServerHealth) -> None:
        self._health = health
        self._known: WeakValueDictionary[bytes, Tool] = WeakValueDictionary()

    def tool(self, server: str, name: str, listed: ListedTool) -> tuple[Tool, bool]:
        """Return the tool as offered under `name`, and whether it was created by this call."""
        digest = hashlib.sha256()
        for part in (server, name, listed.name, listed.description):
            digest.update(f"{len(part)}:{part}".encode(errors="replace"))
        digest.update(b"%d" % listed.repeatable + listed.encoded_schema)
        key = digest.digest()
        known = self._known.get(key)
        if known is not None:
            return known, False
        offered = offered_schema(listed.schema)
        if offered.remarks:
            self._health.remark(server, f"the schema of its tool {shown(listed.name)}: " + "; ".join(offered.remarks))
        made = Tool(
            name=name,
            server=server,
            tool=listed.name,
            description=listed.description,
            input_schema=offered.schema,
            repeatable=listed.repeatable,
            own_names=offered.own_names,
        )
        return self._known.setdefault(key, made), True
