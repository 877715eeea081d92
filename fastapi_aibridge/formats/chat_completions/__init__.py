"""OpenAI Chat Completions (https://platform.openai.com/docs/api-reference/chat)."""

from .request import read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, max_tools, woven

name = "chat_completions"

__all__ = ["aliased", "definitions", "max_tools", "name", "read", "restored", "single", "woven"]
