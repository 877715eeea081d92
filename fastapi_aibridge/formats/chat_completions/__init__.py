"""OpenAI Chat Completions (https://platform.openai.com/docs/api-reference/chat)."""

from .request import parse, read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, woven

name = "chat_completions"

__all__ = ["aliased", "definitions", "name", "parse", "read", "restored", "single", "woven"]
