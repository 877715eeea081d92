"""Wire formats, one file each, without I/O: requests read, answers observed, errors written."""

from . import chat_completions, messages, responses
from .format import Format, ModelRequest, Observer

__all__ = ["Format", "ModelRequest", "Observer", "chat_completions", "messages", "responses"]
