"""Anthropic Messages (https://docs.anthropic.com/en/api/messages and .../messages-streaming)."""

from .request import parse, read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, woven

name = "messages"

__all__ = ["aliased", "definitions", "name", "parse", "read", "restored", "single", "woven"]
