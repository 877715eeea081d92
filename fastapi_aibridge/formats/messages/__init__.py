"""Anthropic Messages (https://docs.anthropic.com/en/api/messages and .../messages-streaming)."""

from .request import read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, max_tools, woven

name = "messages"

__all__ = ["aliased", "definitions", "max_tools", "name", "read", "restored", "single", "woven"]
