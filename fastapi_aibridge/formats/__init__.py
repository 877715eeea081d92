"""Wire formats, one folder each, without I/O: requests read, answers observed, errors written."""

from . import chat_completions, messages, responses
from .compaction import compaction
from .completions import completions
from .embeddings import embeddings
from .format import Format
from .request import ModelRequest

__all__ = [
    "Format",
    "ModelRequest",
    "chat_completions",
    "compaction",
    "completions",
    "embeddings",
    "messages",
    "responses",
]
