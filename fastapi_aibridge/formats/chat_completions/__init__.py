"""OpenAI Chat Completions (https://platform.openai.com/docs/api-reference/chat)."""

from .request import parse, read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, max_tools, woven

name = "chat_completions"

__all__ = ["aliased", "definitions", "max_tools", "name", "parse", "read", "restored", "single", "woven"]
