"""OpenAI Responses (https://platform.openai.com/docs/api-reference/responses and .../responses-streaming)."""

from .request import read
from .restoring import aliased, restored
from .streams import single
from .weaver import definitions, max_tools, woven

name = "responses"

__all__ = ["aliased", "definitions", "max_tools", "name", "read", "restored", "single", "woven"]
