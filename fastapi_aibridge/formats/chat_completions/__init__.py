"""OpenAI Chat Completions (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from ..rounds import RoundsFormat
from . import rounds as _rounds
from .observer import observer
from .request import parse, read

name = "chat_completions"
rounds: RoundsFormat = _rounds

__all__ = ["name", "observer", "parse", "read", "rounds"]
