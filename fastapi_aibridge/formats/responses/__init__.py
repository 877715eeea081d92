"""OpenAI Responses (https://platform.openai.com/docs/api-reference/responses and .../responses-streaming)."""

from __future__ import annotations

from ..rounds import RoundsFormat
from . import rounds as _rounds
from .observer import observer
from .request import parse, read

name = "responses"
rounds: RoundsFormat = _rounds

__all__ = ["name", "observer", "parse", "read", "rounds"]
